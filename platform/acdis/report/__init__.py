"""Tables and figures from what a cell's folder holds."""

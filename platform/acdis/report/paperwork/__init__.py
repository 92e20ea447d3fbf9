"""A paper's paperwork: checklists filled from the cells, what it all cost, a methods paragraph, BibTeX."""

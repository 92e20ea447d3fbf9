"""Figures 1, 5, 6 and 7 of the paper, for trained cells: numbers, what is computed for them, and drawing."""

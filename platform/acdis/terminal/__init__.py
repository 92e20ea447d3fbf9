"""What a person sees of long work: progress of one cell, and of many."""

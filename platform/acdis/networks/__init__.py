"""Torch modules: no losses, no files. Which of them a network is made of is a method's decision."""

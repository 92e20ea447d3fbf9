"""A patient's files in, labels in their own grid out; models are handed on as files without pickle."""

"""Which cells there are: content-addressed names and the folder that holds the truth about each."""

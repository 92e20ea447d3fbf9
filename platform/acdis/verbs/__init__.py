"""What the command line does, one file a verb: the only place where cluster, tracking and report meet."""

"""Training on one process group: plain torch, runs without Ray. It emits events and tracks nothing."""

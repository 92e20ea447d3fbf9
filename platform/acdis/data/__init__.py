"""Files on disk -> validated cases -> preprocessed cache -> crops."""

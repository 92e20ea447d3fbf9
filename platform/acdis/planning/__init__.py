"""What would run: the resources there are, where cells fit, how long, how much disk. No torch, no ray."""

"""Training: data, losses, the loop."""

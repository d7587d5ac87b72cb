"""Training: the Lightning module, its optimiser and schedule, checkpoints and callbacks."""

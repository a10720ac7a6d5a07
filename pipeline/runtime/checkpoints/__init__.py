"""Checkpoints of live tasks: made beside processing, registered, used by restores, listed and pruned."""

"""The databases that sinks write to. Their clients are imported nowhere else."""

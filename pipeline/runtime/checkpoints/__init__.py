"""Checkpoints of live tasks: uploaded while processing continues, and registered in the journal."""

"""Sharing tasks with other workers: who they are, what they run, and taking over from them."""

"""Faust applications on this engine: what they use, and how they move."""

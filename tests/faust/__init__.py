"""Faust applications on this engine."""

"""Event clocks and windows."""

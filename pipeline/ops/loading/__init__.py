"""Loads files into a topic, each row exactly once: `pipeline produce` and `pipeline loads`."""

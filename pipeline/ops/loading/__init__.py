"""Loads: files into one topic, exactly once: `pipeline produce` and `pipeline loads`."""

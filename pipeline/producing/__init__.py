"""Producing events from programs of one's own: what `pipeline.Producer` is made of, on ports."""

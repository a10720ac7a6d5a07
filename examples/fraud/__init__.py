"""An example of overlapping windows: alerts for much revenue in five minutes."""

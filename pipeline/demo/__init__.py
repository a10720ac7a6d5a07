"""`pipeline demo`: workers that are killed, and a comparison of their results with a plain loop."""

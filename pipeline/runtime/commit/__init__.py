"""Commits of one task: its transactions, the proof that its reads were current, and the rate of commits."""

"""Benchmarks: ratios measured side by side on one machine, in one run. `make bench` runs them all."""

__all__ = ["NOT_DECLARED", "BenchmarkError"]

NOT_DECLARED = ""  # worker.topics_dir of every benchmark: its topics live as long as it does


class BenchmarkError(Exception):
    """What was to be measured did not happen."""

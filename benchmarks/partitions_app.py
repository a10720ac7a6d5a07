"""The app of `benchmarks.partitions`, for `pipeline worker`: sums over an input with many partitions."""

from __future__ import annotations

import os

from pipeline import App, Context, Event

__all__ = ["INPUT", "NAME", "app"]

NAME = "wide"
INPUT = "wide-numbers"

# Given by the benchmark: the number of tasks, or nothing for the default of a new group.
app = App(NAME, tasks=int(os.environ["WIDE_TASKS"]) if "WIDE_TASKS" in os.environ else None)
numbers = app.topic(INPUT, key=str, value=int)
sums = app.table("sums", key=str, value=int)


@app.handler(numbers)
def add(event: Event[str, int], ctx: Context) -> None:
    """Add to the sum of the key."""
    table = ctx.table(sums)
    table[event.key] = table.get(event.key, 0) + event.value

"""The app that worker processes under test run: a running sum per key, and a second group that counts.

Names come from the environment, because every test has its own topics on a shared broker. The environment can also
omit the second group, and choose the number of tasks of both groups.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pipeline import App, Context, Event
from tests.support.checker import made_from

PREFIX = os.environ.get("SUMS_PREFIX", "sums")
GROUPS = os.environ.get("SUMS_GROUPS", "main counting").split()
# Of another version of the code: the key whose sum is 1 too high from this number on, as KEY:NUMBER.
WRONG_KEY, _, WRONG_FROM = os.environ.get("SUMS_WRONG", "").partition(":")


class Amount(msgspec.Struct, frozen=True):
    """An input."""

    n: int


class Sum(msgspec.Struct, frozen=True):
    """An output: the number of inputs of a key, and their sum."""

    count: int
    total: int


TASKS = int(os.environ.get("SUMS_TASKS", "0")) or None
app = App(PREFIX, tasks=TASKS)
# While this file exists, some records of partition 1 fail and are tried again.
FAILS = Path(os.environ.get("SUMS_FAILS", "/nonexistent"))
amounts = app.topic(f"{PREFIX}-amounts", key=str, value=Amount)
sums = app.topic(f"{PREFIX}-sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)


@app.handler(
    amounts,
    on_error="dead_letter" if os.environ.get("SUMS_LETTERS") else "stop",
    retries=10_000 if "SUMS_FAILS" in os.environ else 0,
    retry_delay_s=0.05,
)
def add(event: Event[str, Amount], ctx: Context) -> None:
    """Add to the key's sum and publish it."""
    if event.partition == 1 and event.value.n % 10 == 0 and FAILS.exists():
        raise ConnectionError("the service is unreachable")
    table = ctx.table(totals)
    before = table.get(event.key, Sum(0, 0))
    wrong = event.key == WRONG_KEY and event.value.n >= int(WRONG_FROM)
    after = Sum(before.count + 1, before.total + event.value.n + wrong)
    table[event.key] = after
    ctx.send(sums, event.key, after, headers=made_from(f"{PREFIX}.main", event))


if "counting" in GROUPS:
    counting = app.group("counting", tasks=TASKS)
    counts = counting.table("counts", key=str, value=int)

    @counting.handler(amounts)
    def count(event: Event[str, Amount], ctx: Context) -> None:
        """Count the key's inputs, with no output."""
        table = ctx.table(counts)
        table[event.key] = table.get(event.key, 0) + 1

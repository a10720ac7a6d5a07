"""The app of `sums` with injected errors: the same names, types and results, so that `sums` is the fixed app.

$TROUBLE selects the error of its handler at the input with the number $TROUBLE_AT. $TROUBLE_POLICY is the handler's
`on_error` policy.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from pipeline import App, Context, Event
from tests.support.checker import made_from
from tests.support.kafka.sums import PREFIX, Amount, Sum

AT = int(os.environ.get("TROUBLE_AT", "-1"))
POLICY: Any = os.environ.get("TROUBLE_POLICY", "stop")

app = App(PREFIX)
amounts = app.topic(f"{PREFIX}-amounts", key=str, value=Amount)
sums = app.topic(f"{PREFIX}-sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)

counting = app.group("counting")
counts = counting.table("counts", key=str, value=int)


@app.handler(amounts, on_error=POLICY)
def add(event: Event[str, Amount], ctx: Context) -> None:
    """Add and publish correctly, then meet the error, so that there are effects to undo."""
    table = ctx.table(totals)
    before = table.get(event.key, Sum(0, 0))
    after = Sum(before.count + 1, before.total + event.value.n)
    table[event.key] = after
    ctx.send(sums, event.key, after, headers=made_from(f"{PREFIX}.main", event))
    if event.value.n == AT:
        TROUBLES[os.environ["TROUBLE"]](ctx)


@counting.handler(amounts, on_error=POLICY)
def count(event: Event[str, Amount], ctx: Context) -> None:
    """Count, without an error."""
    table = ctx.table(counts)
    table[event.key] = table.get(event.key, 0) + 1


def _raises(ctx: Context) -> None:
    raise ValueError("no such carrier")


def _sends_elsewhere(ctx: Context) -> None:
    ctx.send(App("another").topic("elsewhere", key=str, value=int), "k", 1)


def _sends_too_much(ctx: Context) -> None:
    ctx.send(sums, "k" * 30_000, Sum(0, 0))


def _hangs(ctx: Context) -> None:
    while True:
        time.sleep(0.05)


def _hangs_in_c(ctx: Context) -> None:
    """Lock a mutex twice: a wait that no signal interrupts, like that of some database drivers."""
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


TROUBLES = {
    "raises": _raises,
    "sends elsewhere": _sends_elsewhere,
    "sends too much": _sends_too_much,
    "hangs": _hangs,
    "hangs in C": _hangs_in_c,
}

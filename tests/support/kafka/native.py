"""An app whose handler crashes its process at a negative number, in the way that CRASH defines.

With THREAD it leaves a thread running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from typing import cast

import msgspec

from pipeline import App, Context, Event, OnError
from pipeline.app import declared_app

PREFIX = os.environ.get("SUMS_PREFIX", "native")
CRASH = os.environ.get("CRASH", "")
ON_ERROR = cast("OnError", os.environ.get("ON_ERROR", "stop"))


class Amount(msgspec.Struct, frozen=True):
    """An input."""

    n: int


class Sum(msgspec.Struct, frozen=True):
    """An output."""

    count: int
    total: int


app = App(PREFIX)
declared_app(app).main.tasks = int(os.environ.get("SUMS_TASKS", "0")) or None
amounts = app.topic(f"{PREFIX}-amounts", key=str, value=Amount)
sums = app.topic(f"{PREFIX}-sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)


if os.environ.get("THREAD"):
    threading.Thread(target=threading.Event().wait, name="theirs").start()


def crash(how: str) -> None:
    """End the process; an empty `how` does nothing."""
    if how == "segv":
        ctypes.string_at(0)
    elif how == "fatal":
        ctypes.pythonapi.Py_FatalError(b"as by a broken extension module")
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@app.handler(amounts, on_error=ON_ERROR, retries=2)
def add(event: Event[str, Amount], ctx: Context) -> None:
    """Add to the key's sum and publish it."""
    if event.value.n < 0:
        crash(CRASH)
    table = ctx.table(totals)
    before = table.get(event.key, Sum(0, 0))
    after = Sum(before.count + 1, before.total + event.value.n)
    table[event.key] = after
    ctx.send(sums, event.key, after)

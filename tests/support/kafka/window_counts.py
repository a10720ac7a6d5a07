"""The app of the window tests on a real Kafka: the numbers of the events of each key and second.

Names come from the environment, because every test has its own topics on a shared broker.
"""

from __future__ import annotations

import os

import msgspec

from pipeline import App, ClosedWindow, Context, Event, Tumbling

PREFIX = os.environ.get("COUNTS_PREFIX", "counts")
SIZE_S = 1


class Happened(msgspec.Struct, frozen=True):
    """An input."""

    n: int
    at_ms: int


class Closed(msgspec.Struct, frozen=True):
    """An output: the numbers of the events of a key in the second from `start_ms` on."""

    start_ms: int
    numbers: tuple[int, ...]


app = App(PREFIX)
events = app.topic(f"{PREFIX}-events", key=str, value=Happened, event_time_ms=lambda event: event.value.at_ms)
closed = app.topic(f"{PREFIX}-closed", key=str, value=Closed)
late = app.topic(f"{PREFIX}-late", key=str, value=Happened)
window = app.window(
    "seconds",
    key=str,
    value=tuple[int, ...],
    size=Tumbling(SIZE_S),
    grace_s=0.2,
    default=(),
    late_to=late,
)


@app.handler(events)
def collect(event: Event[str, Happened], ctx: Context) -> None:
    """Add the event's number to its second."""
    for row in ctx.window(window).rows(event):
        row.value = (*row.value, event.value.n)


@app.on_close(window)
def publish(second: ClosedWindow[str, tuple[int, ...]], ctx: Context) -> None:
    """Publish the numbers of a second that is over."""
    ctx.send(closed, second.key, Closed(second.start_ms, second.value))

"""The app of the tests of sessions and joins on a real Kafka: the activity of each key, and pairs of its events.

Names come from the environment, because every test has its own topics on a shared broker.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from pipeline import App, ClosedWindow, Context, Event, Sessions

PREFIX = os.environ.get("COUNTS_PREFIX", "pairs")
GAP_S = WITHIN_S = 0.3
GRACE_S = 0.2
Numbers = tuple[int, ...]


class Happened(msgspec.Struct, frozen=True):
    """An input."""

    n: int
    at_ms: int


class Seen(msgspec.Struct, frozen=True):
    """An input as it was handled: on which side, and the clock before it."""

    side: str
    n: int
    clock_ms: int


class Closed(msgspec.Struct, frozen=True):
    """A session: its times, and the numbers of its events in the order in which they were added."""

    start_ms: int
    last_ms: int
    numbers: Numbers


def _joined(earlier: Numbers, later: Numbers) -> Numbers:
    return earlier + later


def _time(event: Event[str, Happened]) -> int:
    return event.value.at_ms


app = App(PREFIX)
lefts = app.topic(f"{PREFIX}-left", key=str, value=Happened, event_time_ms=_time)
rights = app.topic(f"{PREFIX}-right", key=str, value=Happened, event_time_ms=_time)
seen = app.topic(f"{PREFIX}-seen", key=str, value=Seen)
closed = app.topic(f"{PREFIX}-closed", key=str, value=Closed)
late = app.topic(f"{PREFIX}-late", key=str, value=Happened)
matched = app.topic(f"{PREFIX}-matched", key=str, value=tuple[int, int])
unmatched = app.topic(f"{PREFIX}-unmatched", key=str, value=tuple[str, int])
sessions = app.window(
    "sessions",
    key=str,
    value=Numbers,
    size=Sessions(GAP_S, merge=_joined),
    grace_s=GRACE_S,
    default=(),
    late_to=late,
)


def _collect(side: str) -> Callable[[Event[str, Happened], Context], None]:
    def collect(event: Event[str, Happened], ctx: Context) -> None:
        ctx.send(seen, event.key, Seen(side, event.value.n, ctx.clock_ms))
        for row in ctx.window(sessions).rows(event):
            row.value = (*row.value, event.value.n)

    return collect


app.handler(lefts)(_collect("left"))
app.handler(rights)(_collect("right"))
pairs = app.join("pairs", lefts, rights, within_s=WITHIN_S, grace_s=GRACE_S)


@app.on_close(sessions)
def publish(session: ClosedWindow[str, Numbers], ctx: Context) -> None:
    """Publish a session that is over."""
    ctx.send(closed, session.key, Closed(session.start_ms, session.end_ms - 1, session.value))


@pairs.on_match
def match(left: Event[str, Happened], right: Event[str, Happened], ctx: Context) -> None:
    """Publish a pair."""
    ctx.send(matched, left.key, (left.value.n, right.value.n))


@pairs.on_unmatched_left
def left_alone(event: Event[str, Happened], ctx: Context) -> None:
    """Publish a left event without a partner."""
    ctx.send(unmatched, event.key, ("left", event.value.n))


@pairs.on_unmatched_right
def right_alone(event: Event[str, Happened], ctx: Context) -> None:
    """Publish a right event without a partner."""
    ctx.send(unmatched, event.key, ("right", event.value.n))

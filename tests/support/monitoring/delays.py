"""The app of the security tests with a window, so that the tasks of a group have event clocks."""

from __future__ import annotations

from pipeline import Context, Event, Tumbling
from tests.support.secure.delays import Delay, app, counting, delays

__all__ = ["app"]

by_minute = counting.window("by-minute", key=str, value=int, size=Tumbling(60), grace_s=0, default=0)


@counting.handler(delays)
def count_by_minute(event: Event[str, Delay], ctx: Context) -> None:
    """Count the totals of a carrier in a minute."""
    for row in ctx.window(by_minute).rows(event):
        row.value += 1

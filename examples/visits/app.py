"""Visits to a web shop: the clicks of a visitor until there is none for half an hour.

    clicks -> visits (sessions) -> finished-visits (when a visit is over)
                                -> late-clicks (if the visit was over already)

Run it with: pipeline worker examples.visits.app:app --topics-dir examples/visits/topics
"""

from __future__ import annotations

import msgspec

from pipeline import App, ClosedWindow, Context, Event, Sessions


class Click(msgspec.Struct, frozen=True):
    """What a visitor has opened or bought, and when."""

    page: str
    cents: int
    at_ms: int


class Visit(msgspec.Struct, frozen=True):
    """The pages of a visit, in the order in which they were counted, and what was bought."""

    pages: tuple[str, ...] = ()
    cents: int = 0

    def plus(self, click: Click) -> Visit:
        """The visit with one more click."""
        return Visit((*self.pages, click.page), self.cents + click.cents)

    def followed_by(self, later: Visit) -> Visit:
        """The visit that this one and a later one are, if a click connects them."""
        return Visit(self.pages + later.pages, self.cents + later.cents)


class FinishedVisit(msgspec.Struct, frozen=True):
    """A visit that is over, and how long it took."""

    seconds: float
    visit: Visit


app = App("visits")
clicks = app.topic(
    "clicks", key=str, value=Click, event_time_ms=lambda event: event.value.at_ms
)  # by visitor
finished_visits = app.topic("finished-visits", key=str, value=FinishedVisit)
late_clicks = app.topic("late-clicks", key=str, value=Click)

visits = app.window(
    "visits",
    key=str,
    value=Visit,
    size=Sessions(1800, merge=Visit.followed_by),
    grace_s=60,
    default=Visit(),
    late_to=late_clicks,
)


@app.handler(clicks)
def clicked(event: Event[str, Click], ctx: Context) -> None:
    """Add a click to its visit."""
    for row in ctx.window(visits).rows(event):
        row.value = row.value.plus(event.value)


@app.on_close(visits)
def left(visit: ClosedWindow[str, Visit], ctx: Context) -> None:
    """Publish a visit that is over."""
    ctx.send(
        finished_visits,
        visit.key,
        FinishedVisit((visit.end_ms - visit.start_ms - 1) / 1000, visit.value),
    )

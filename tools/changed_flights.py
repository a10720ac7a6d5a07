"""The flights app with one handler changed: a minute too much for one carrier. For drills that must find it."""

from __future__ import annotations

import msgspec

from examples.flights import app as flights
from examples.flights.app import Delay, Flight, app

__all__ = ["CARRIER", "app"]

CARRIER = "UA"


_delay_after = flights.delay_after


def late(before: Delay, flight: Flight) -> Delay:
    """Add a minute to each flight of the carrier."""
    after = _delay_after(before, flight)
    wrong = flight.carrier == CARRIER and flight.dep_delay is not None
    return msgspec.structs.replace(after, minutes=after.minutes + wrong)


flights.delay_after = late  # the handler looks the function up at each call

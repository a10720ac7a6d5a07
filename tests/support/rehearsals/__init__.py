"""Runbooks rehearsed as a reader would: their commands on a real Kafka, from the symptom to the repair."""

from __future__ import annotations

from tests.support.rehearsals.by_hand import BY_HAND
from tests.support.rehearsals.with_drills import WITH_DRILLS

__all__ = ["REHEARSALS"]

REHEARSALS = BY_HAND | WITH_DRILLS  # by the names of their pages

"""The limits of a load: what a topic's configuration allows in a record, and the rate.

A row that the topic would refuse is found before it is sent, so an error can name the line.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.ops.loading.formats.cells import MAX_TIMESTAMP_MS
from pipeline.ops.loading.formats.rows import RowLimits
from pipeline.ports import Clock

__all__ = ["DEFAULT_RECORD_BYTES", "RateLimit", "paced_rows", "record_bytes", "row_limits"]

DEFAULT_RECORD_BYTES = 1_048_588
_OVERHEAD_BYTES = 1_024  # the batch around a record, and its headers


def record_bytes(config: Mapping[str, str]) -> int:
    """The largest message that the topic accepts, in bytes."""
    return int(config.get("max.message.bytes", DEFAULT_RECORD_BYTES))


def row_limits(config: Mapping[str, str], batch_rows: int, now_ms: int) -> RowLimits:
    """The limits of a load that starts at `now_ms`."""
    oldest_ms, newest_ms = 0, MAX_TIMESTAMP_MS
    if config.get("message.timestamp.type", "CreateTime") == "CreateTime":
        kept_ms = int(config.get("retention.ms", -1))
        if kept_ms >= 0 and "delete" in config.get("cleanup.policy", "delete"):
            oldest_ms = now_ms - kept_ms
        oldest_ms = max(oldest_ms, now_ms - int(config.get("message.timestamp.before.max.ms", now_ms)))
        newest_ms = min(newest_ms, now_ms + int(config.get("message.timestamp.after.max.ms", newest_ms)))
    return RowLimits(
        batch_rows=batch_rows,
        record_bytes=max(1, record_bytes(config) - _OVERHEAD_BYTES),
        oldest_ms=max(0, oldest_ms),
        newest_ms=newest_ms,
    )


_COMMITS_PER_S = 10


class RateLimit:
    """Call the object with the number of records loaded since its creation. It waits until more are allowed."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def __call__(self, records: int) -> None:
        due_s = self._began_s + records / self._rate
        wait_s = due_s - self._clock.monotonic_s()
        if wait_s > 0:
            self._clock.sleep(wait_s)


def paced_rows(rate: int, rows: int) -> int:
    """The rows of one transaction, at most `rows`: with a low rate, transactions are small and frequent."""
    return max(1, min(rows, rate // _COMMITS_PER_S))

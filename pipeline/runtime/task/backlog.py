"""Records that a task cannot process yet: `Backlog`. It keeps the order of each topic.

If the first record of a topic is to be retried later, only the other records of this topic wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.ports import Clock, Record

__all__ = ["Backlog", "Retried", "WaitingRecords"]


class WaitingRecords(NamedTuple):
    """Records of one topic, in order. `failures`: the failures of the first record; if there are any, it is alone."""

    topic: str
    records: Sequence[Record]
    failures: int


class Retried(NamedTuple):
    """A record that is being retried.

    `since_s`: its first failure, by the monotonic clock. `reason`: its last error.
    """

    topic: str
    partition: int
    offset: int
    failures: int
    since_s: float
    reason: str


class _Retry(NamedTuple):
    failures: int
    due_s: float


class Backlog:
    """The caller bounds it: `records` is the number of waiting records. Processing thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._runs: deque[tuple[str, Sequence[Record]]] = deque()
        self._retries: dict[str, _Retry] = {}
        self._retried: dict[str, Retried] = {}
        self.records = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, topic: str, records: Sequence[Record]) -> None:
        """Add records after all waiting ones of this topic."""
        self._runs.append((topic, records))
        self.records += len(records)

    @property
    def retried(self) -> Retried | None:
        """The record that has been retried for the longest time."""
        return min(self._retried.values(), key=lambda retried: retried.since_s, default=None)

    def hold(
        self, topic: str, records: Sequence[Record], failures: int, wait_s: float, reason: str = ""
    ) -> None:
        """Add records before all waiting ones of this topic. The first has failed, and is retried in `wait_s`."""
        self._runs.appendleft((topic, records))
        self.records += len(records)
        now_s, first, before = self._clock.monotonic_s(), records[0], self._retried.get(topic)
        self._retries[topic] = _Retry(failures, now_s + wait_s)
        since_s = before.since_s if before is not None and before.offset == first.offset() else now_s
        self._retried[topic] = Retried(topic, first.partition(), first.offset(), failures, since_s, reason)

    def settle(self, topic: str) -> None:
        """The record of this topic that was being retried is finished."""
        self._retried.pop(topic, None)

    def take(self) -> WaitingRecords | None:
        """The next records that may be processed; None if there are none now. A retried record comes alone."""
        now = self._clock.monotonic_s() if self._retries else 0.0
        for index, (topic, records) in enumerate(self._runs):
            retry = self._retries.get(topic)
            if retry is None:
                del self._runs[index]
                self.records -= len(records)
                return WaitingRecords(topic, records, 0)
            if retry.due_s <= now:
                del self._retries[topic]
                del self._runs[index]
                if len(records) > 1:
                    self._runs.insert(index, (topic, records[1:]))
                self.records -= 1
                return WaitingRecords(topic, records[:1], retry.failures)
        return None

    def clear(self) -> None:
        """Drop all records. They are still in the input."""
        self._runs.clear()
        self._retries.clear()
        self._retried.clear()
        self.records = 0

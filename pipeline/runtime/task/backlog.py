"""Records that a task cannot process yet: `Backlog`. It keeps the order of each input.

If the first record of an input is to be retried later, only the other records of this input wait for it. Inputs have
the names of `core/inputs.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from pipeline.core.inputs import topic_of
from pipeline.ports import Clock, Record

__all__ = ["Backlog", "Retried", "WaitingRecords"]


class WaitingRecords(NamedTuple):
    """Records of one input, in order. `failures`: the failures of the first record; if there are any, it is alone."""

    name: str
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
        self.by_partition: dict[int, int] = {}  # the numbers of waiting records that are not zero

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, name: str, records: Sequence[Record]) -> None:
        """Add records after all waiting ones of this input."""
        self._runs.append((name, records))
        self._count(records[0], len(records))

    def put_back(self, name: str, records: Sequence[Record]) -> None:
        """Add records before all waiting ones of this input: `take` has returned them, and there is no room."""
        self._runs.appendleft((name, records))
        self._count(records[0], len(records))

    def _count(self, record: Record, added: int) -> None:
        self.records += added
        partition = record.partition() or 0
        waiting = self.by_partition.get(partition, 0) + added
        if waiting:
            self.by_partition[partition] = waiting
        else:
            self.by_partition.pop(partition, None)

    @property
    def retried(self) -> Retried | None:
        """The record that has been retried for the longest time."""
        return min(self._retried.values(), key=lambda retried: retried.since_s, default=None)

    def hold(
        self, name: str, records: Sequence[Record], failures: int, wait_s: float, reason: str = ""
    ) -> None:
        """Add records before all waiting ones of this input. The first has failed, and is retried in `wait_s`."""
        self._runs.appendleft((name, records))
        now_s, first, before = self._clock.monotonic_s(), records[0], self._retried.get(name)
        self._count(first, len(records))
        self._retries[name] = _Retry(failures, now_s + wait_s)
        since_s = before.since_s if before is not None and before.offset == first.offset() else now_s
        place = topic_of(name), first.partition(), first.offset()
        self._retried[name] = Retried(*place, failures, since_s, reason)

    def settle(self, name: str) -> None:
        """The record of this input that was being retried is finished."""
        self._retried.pop(name, None)

    def holds(self, name: str) -> bool:
        """Whether records of an input wait."""
        return any(waiting == name for waiting, _ in self._runs)

    def drop(self, names: Collection[str]) -> None:
        """Drop all records of these inputs. They are still in the topics."""
        for name, records in self._runs:
            if name in names:
                self._count(records[0], -len(records))
        self._runs = deque(run for run in self._runs if run[0] not in names)
        for name in names:
            self._retries.pop(name, None)
            self._retried.pop(name, None)

    def take(self, has_room: Callable[[str], bool] | None = None) -> WaitingRecords | None:
        """The next records that may be processed; None if there are none now. A retried record comes alone.

        `has_room`: whether records of an input may be processed. Default: those of all.
        """
        now = self._clock.monotonic_s() if self._retries else 0.0
        for index, (name, records) in enumerate(self._runs):
            if has_room is not None and not has_room(name):
                continue
            retry = self._retries.get(name)
            if retry is None:
                del self._runs[index]
                self._count(records[0], -len(records))
                return WaitingRecords(name, records, 0)
            if retry.due_s <= now:
                del self._retries[name]
                del self._runs[index]
                if len(records) > 1:
                    self._runs.insert(index, (name, records[1:]))
                self._count(records[0], -1)
                return WaitingRecords(name, records[:1], retry.failures)
        return None

    def clear(self) -> None:
        """Drop all records. They are still in the input."""
        self._runs.clear()
        self._retries.clear()
        self._retried.clear()
        self.by_partition.clear()
        self.records = 0

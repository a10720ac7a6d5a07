"""The calls of one partition number, over all its inputs: `PartitionCalls`.

    arrival   the records of all inputs form one order. A call starts once the earlier calls of its key have ended
    end       the writes of the call stay in its buffer, which later calls of its key see
    prefix    only the finished calls at the beginning of the order move into tables and outputs

There is one order, and not one for each topic: a call for a record of one topic may have read what a call for a record
of another topic wrote, so the commit that contains the first record must contain the other one too. A retry keeps its
place, so no record behind it is committed. Calls of records without a key run in any order, because these records have
no rows. Processing thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import CorruptStateError
from pipeline.ports import Clock
from pipeline.runtime.calls.call import Call, CallState
from pipeline.runtime.calls.slots import Slots
from pipeline.runtime.task.backlog import Retried
from pipeline.runtime.task.handler_errors import plainly
from pipeline.runtime.task.record_errors import RecordErrors

__all__ = ["Outstanding", "PartitionCalls"]

_DONE, _DROPPED = CallState.DONE, CallState.DROPPED


@dataclass(slots=True)
class Outstanding:
    """The number of calls of a task, over all its partitions, whose records are not in the open commit."""

    calls: int = 0


class PartitionCalls:
    """`due`: called when the first call in the order has finished. `outstanding`: the count of the whole task."""

    def __init__(
        self,
        slots: Slots,
        errors: RecordErrors,
        clock: Clock,
        outstanding: Outstanding,
        due: Callable[[PartitionCalls], None],
    ) -> None:
        self._outstanding = outstanding
        self._slots = slots
        self._errors = errors
        self._clock = clock
        self._due = due
        self._order: deque[Call] = deque()
        self._keys: dict[
            Any, deque[Call] | None
        ] = {}  # by key with a call that has not ended: the calls behind it
        self.earlier: dict[
            Any, Call
        ] = {}  # by key: the last finished call whose writes are not in the tables
        self._retried: dict[int, Call] = {}
        self._leaving = False

    def __len__(self) -> int:
        """The number of calls whose records are not in the open commit."""
        return len(self._order)

    @property
    def retried(self) -> Retried | None:
        """The record that has been retried for the longest time."""
        call = min(self._retried.values(), key=lambda call: call.first_failed_s, default=None)
        if call is None:
            return None
        place = call.place
        return Retried(
            place.topic(), place.partition(), place.offset(), call.failures, call.first_failed_s, call.reason
        )

    def add(self, calls: Sequence[Call]) -> None:
        """Add the calls of records after all others of the partition."""
        order, keys, start = self._order, self._keys, self._slots.add
        for call in calls:
            key = call.key
            if key is None:
                start(call)
            elif key not in keys:
                keys[key] = None
                start(call)
            else:
                behind = keys[key]
                if behind is None:
                    behind = keys[key] = deque()
                behind.append(call)
        order.extend(calls)
        self._outstanding.calls += len(calls)

    def add_settled(self, call: Call, settle: Callable[[], None]) -> None:
        """Add a record whose handler is not called. `settle` is called when it is first, and may raise PoisonError."""
        call.end()
        call.state, call.settle = _DONE, settle
        self._order.append(call)
        self._outstanding.calls += 1
        if self._order[0] is call:
            self._due(self)

    def add_undecodable(self, call: Call, error: BaseException) -> None:
        """Add a record whose key cannot be decoded."""
        route = call.route
        error = plainly(error, route.topic, call.record)
        self.add_settled(call, partial(self._errors.settle, route.binding, call.record, error, 1))

    def done(self, call: Call) -> None:
        """The handler has returned."""
        call.made = call.end()
        self._finish(call)

    def failed(self, call: Call, error: BaseException) -> None:
        """The handler has raised or timed out. Its buffer is dropped; no later call of its key has started."""
        call.end()
        call.written = None
        if isinstance(error, CorruptStateError):
            call.settle = partial(_raise, error)
            self._finish(call)
            return
        route, record = call.route, call.record
        failures = call.failures + 1
        error = plainly(error, route.topic, record)
        retry = self._errors.retry(route.topic, route.binding, record, error, failures)
        if retry is None:
            call.settle = partial(self._errors.settle, route.binding, record, error, failures)
            self._finish(call)
        elif self._leaving:
            self._cut(self._order.index(call))
        else:
            self._retry(call, retry.wait_s, retry.reason)

    def _retry(self, call: Call, wait_s: float, reason: str) -> None:
        following = call.again()
        following.first_failed_s = call.first_failed_s if call.failures else self._clock.monotonic_s()
        following.reason = reason
        call.state = following.state = CallState.RETRIED
        self._retried.pop(id(call), None)
        self._order[self._order.index(call)] = following
        self._retried[id(following)] = following
        self._slots.add_later(following, wait_s)

    def _finish(self, call: Call) -> None:
        call.state = _DONE
        key, written = call.key, call.written
        if self._retried:
            self._retried.pop(id(call), None)
        if written:
            before = self.earlier.get(key)
            if before is not None and before.written is not None:
                call.written = {
                    **before.written,
                    **written,
                }  # those of `before` are the rows as this call saw them
            self.earlier[key] = call
        if self._order[0] is call:
            self._due(self)
        if key is not None:
            behind = self._keys[key]
            if behind:
                self._slots.add(behind.popleft())
            else:
                del self._keys[key]

    def take(self, most: int) -> list[Call]:
        """Take finished calls from the beginning of the order: at most `most`, all of one input."""
        order, taken = self._order, list[Call]()
        name = order[0].name if order else ""
        while order and order[0].state is _DONE and order[0].name == name and len(taken) < most:
            taken.append(order.popleft())
        self._outstanding.calls -= len(taken)
        return taken

    def leave(self) -> None:
        """Drop the calls behind the last one that has started, and those from the first retry on. Retry nothing.

        So the next owner repeats no call that has started, unless a call before it failed or was cancelled.
        """
        self._leaving = True
        waits = next((n for n, call in enumerate(self._order) if call.state is CallState.RETRIED), None)
        if waits is not None:
            self._cut(waits)
        started = [n for n, call in enumerate(self._order) if call.state in {CallState.RUNNING, _DONE}]
        self._cut(started[-1] + 1 if started else 0)

    def drop(self) -> None:
        """Drop all calls, because the task or the partition has ended. Calls that run are cancelled."""
        self._cut(0)
        self._keys.clear()
        self.earlier.clear()

    def drop_unfinished(self) -> None:
        """Drop all calls except the finished ones at the beginning of the order."""
        self._cut(
            next((n for n, call in enumerate(self._order) if call.state is not _DONE), len(self._order))
        )

    def _cut(self, at: int) -> None:
        """Drop the calls from index `at` of the order on. Their records are still in the topics."""
        while len(self._order) > at:
            call = self._order.pop()
            self._outstanding.calls -= 1
            self._retried.pop(id(call), None)
            if call.state is CallState.RUNNING:
                self._slots.cancel(call)
            if call.state is not _DONE:
                call.end()
            call.state = _DROPPED


def _raise(error: CorruptStateError) -> None:
    """Raise an error that concerns the task, and not the record."""
    raise error

"""One attempt of an async handler at a record: `Call`, and the class that the calls of a partition share.

    WAITING ----> RUNNING ----> DONE ----> its writes are in the tables
       |             |  |
       |             |  +--- failed, retries are left ---> RETRIED (a new call follows)
       +-- dropped --+-----> DROPPED (its result is ignored)

The handler's context is the call itself, so that a record costs one object.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

from pipeline.api.async_context import AsyncContext
from pipeline.api.bindings import Binding
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTable, DeclaredTopic
from pipeline.api.event import Event
from pipeline.api.table import RuntimeTable
from pipeline.ports import Record
from pipeline.runtime.calls.noted import Noted

if TYPE_CHECKING:
    from pipeline.runtime.calls.async_task import AsyncTask
    from pipeline.runtime.calls.partition_calls import PartitionCalls

__all__ = ["Call", "CallState", "Route", "call_type"]


class CallState(Enum):
    """See the diagram above."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRIED = "retried"
    DONE = "done"
    DROPPED = "dropped"


_WAITING: Final = CallState.WAITING


@dataclass(frozen=True, slots=True)
class Route:
    """The async handler of a topic in one task.

    `make`: the class of its events. `read`: decodes the value of a record. `decode`: the
    same from the bytes alone; None if the codec needs the record. `noted`: whether the record is written to the crash
    log for each step of a call.
    """

    topic: DeclaredTopic[Any, Any]
    binding: Binding
    make: type[Event[Any, Any]]
    read: Callable[[Record], Any]
    decode: Callable[[bytes | None], Any] | None = None
    noted: bool = False


class Call(AsyncContext):
    """One attempt at `record`. `place` is the record of the input `name` that is committed: for a replay, another one.

    `failures`: the number of earlier failures of the record. If there are any, `first_failed_s` and `reason` are set.
    `settle`: applies the policy when the record is first in the order; None after success.
    """

    __slots__ = (
        "cancelled_s",
        "failures",
        "first_failed_s",
        "made",
        "name",
        "place",
        "reason",
        "route",
        "settle",
        "started_s",
        "state",
    )

    if TYPE_CHECKING:  # the same for all calls of a partition: see `call_type`
        calls: PartitionCalls
        task: AsyncTask

        # Set when the call starts, and for the attempts after the first.
        started_s: float
        first_failed_s: float
        reason: str

    # The same slots under other names: a property would cost a call for each record.
    key: Any = AsyncContext._key  # type: ignore[misc]  # noqa: SLF001
    record: Any = AsyncContext._message  # type: ignore[misc]  # noqa: SLF001
    written: Any = AsyncContext._written  # type: ignore[misc]  # noqa: SLF001

    def __init__(self, name: str, place: Record, record: Record, route: Route, key: Any) -> None:
        self._message = record
        self._event_ms = None  # a group of async handlers keeps no clock
        self._outputs = []
        self._written = None
        self._event = None
        self._key = key
        self.name = name
        self.place = place
        self.route = route
        self.state: CallState = _WAITING
        self.failures = 0
        self.cancelled_s: float | None = None  # when `timeout_s` had passed
        self.settle: Callable[[], None] | None = None
        self.made: list[Any] | None = None

    def start(self) -> Coroutine[Any, Any, None]:
        """Call the handler. The value is decoded again for each attempt. Raises what the codec raises."""
        route, record, decode = self.route, self._message, self.route.decode
        value = decode(record.value()) if decode is not None else route.read(record)
        event = self._event = route.make(self._key, value, record)
        handler: Coroutine[Any, Any, None] = route.binding.function(event, self)
        return Noted(handler, self.task.crashes, self.name, self.place) if route.noted else handler

    def end(self) -> list[Any]:
        """End the call: its context can no longer be used. Returns its outputs."""
        return self._end()

    def again(self) -> Call:
        """The next attempt. It has its own context, so asyncio tasks that this one left behind cannot write into it."""
        following = type(self)(self.name, self.place, self._message, self.route, self._key)
        following.failures = self.failures + 1
        return following


def call_type(
    task: AsyncTask,
    calls: PartitionCalls,
    tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]],
    context: RuntimeContext,
) -> type[Call]:
    """The class of the calls of a partition. Values that all calls share are class attributes, to save time."""
    shared = {
        "task": task,
        "calls": calls,
        "_earlier": calls.earlier,
        "_tables": tables,
        "_resources": context.resources,
        "_senders": context.senders,
        "_used": context.used,
    }
    return cast(
        "type[Call]", type("Call", (Call,), {"__slots__": (), "__module__": Call.__module__, **shared})
    )

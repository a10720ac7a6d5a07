"""From records to rows of all sinks of a task, record by record: `RecordRows`.

If the row of a record cannot be made or is refused by the database, the policy of its sink decides: the record is
skipped, or it stops its partition (`stopped`). A record that crashed the process before is handled by the same policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.api.event import Event
from pipeline.core.inputs import topic_of
from pipeline.core.names import TaskId
from pipeline.errors import HandlerError, PipelineError, RejectedRowsError
from pipeline.ports import Logger, Record, record_fields, task_fields
from pipeline.runtime.crashes import InputCrashes, NativeCrash, unrecorded
from pipeline.runtime.sinks.rows import Item, Outlet
from pipeline.runtime.task.handler_errors import (
    ENDING,
    LEAVING,
    error_place,
    error_text,
    plainly,
    user_error_fields,
)
from pipeline.runtime.task.record_errors import Rejected
from pipeline.runtime.watchdog import AtWork

__all__ = ["RecordRows"]


class RecordRows:
    """Makes the rows of one task on the processing thread.

    Attributes:
        crashes: The task's records that crashed the process before.
        stopped: The error of the record that stopped a partition, by partition number.
        rejected: How many records were skipped.
    """

    def __init__(self, task: TaskId, outlets: Sequence[Outlet], topics: Iterable[str], log: Logger) -> None:
        self.crashes: InputCrashes = unrecorded(task, topics)
        self.stopped: dict[int, PipelineError] = {}
        self.rejected = Rejected()
        self._task = task
        self._outlets = outlets
        self._log = log
        self._by_topic: dict[str, list[int]] = {}
        for at, outlet in enumerate(outlets):
            self._by_topic.setdefault(outlet.topic.name, []).append(at)
        self._at: tuple[Record, int] | None = None

    @property
    def at_work(self) -> AtWork | None:
        """The record that a row function is processing. Any thread may call this."""
        at = self._at
        if at is None:
            return None
        return AtWork(self._task, [_name(self._outlets[at[1]])], at[0], 1)

    def make(self, name: str, records: Sequence[Record], items: list[Item]) -> None:
        """Append an item for each record of an input, up to one that stops the partition, which gets none."""
        if name not in self.crashes.suspects:
            self._make(name, records, items)
            return
        for part in self.crashes.parts(name, records):
            crash = self.crashes.verdict(name, part[0])
            continues = (
                self._condemn(name, part[0], crash, items)
                if crash is not None
                else self._make(name, part, items)
            )
            if not continues:
                break

    def _condemn(self, name: str, record: Record, crash: NativeCrash, items: list[Item]) -> bool:
        """Handle a record that crashes the process. Returns whether its partition continues.

        The strictest sink decides.
        """
        places = self._by_topic[topic_of(name)]
        strictest = next((at for at in places if self._outlets[at].on_error == "stop"), places[0])
        skipped = self.reject(record, strictest, crash)
        if skipped:
            items.append(Item(record, ()))
        else:
            self.crashes.try_again(name, record)
        return skipped

    def _make(self, name: str, records: Sequence[Record], items: list[Item]) -> bool:
        """Make rows of records. Returns False if one of them stops the partition."""
        outlets, places = self._outlets, self._by_topic[topic_of(name)]
        declared = outlets[places[0]].topic
        decode_key, read_value = declared.key.decode, declared.value.read
        append, at, record = items.append, places[0], records[0]
        remaining = iter(records)
        while True:
            self.crashes.handling(name, records)
            try:
                for record in remaining:
                    at = places[0]
                    made = []
                    for at in places:
                        self._at = record, at
                        # Each sink gets its own event, because it may keep and change it.
                        event: Event[Any, Any] = Event(decode_key(record.key()), read_value(record), record)
                        made.append((at, outlets[at].maker.make(event)))
                    append(Item(record, made))
            except ENDING:
                raise
            except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its record
                if not self.reject(record, at, error):
                    return False
                append(Item(record, ()))
            else:
                return True
            finally:
                self._at = None
                self.crashes.handled()

    def reject(self, record: Record, at: int, error: BaseException) -> bool:
        """Whether the record is skipped. If not, its partition is stopped."""
        outlet = self._outlets[at]
        error = plainly(error, outlet.topic, record)
        ours = isinstance(error, PipelineError) and not isinstance(error, RejectedRowsError)
        final = ours or isinstance(error, LEAVING) or (isinstance(error, NativeCrash) and not error.proven)
        where = f"{record.topic()}[{record.partition()}] offset {record.offset()}"
        reason = error.message if isinstance(error, PipelineError) else error_text(error)
        reason = reason.removeprefix(f"{outlet.maker.sink}: ")
        if outlet.on_error == "skip" and not final:
            self.rejected.skipped += 1
            self._log.warning(
                "record_rejected",
                policy="skip",
                **task_fields(self._task),
                **record_fields(record),
                **user_error_fields(error),
            )
            return True
        frames = "" if isinstance(error, PipelineError) else f"\n{error_place(error)}"
        advice = error.hint if isinstance(error, PipelineError) and error.hint else None
        if isinstance(error, NativeCrash):
            advice = (
                "fix the row function or the library that it calls and start the worker again: "
                "runbooks/native-crash.md"
            )
        self.stopped[record.partition() or 0] = HandlerError(
            f"task {self._task}: the record {where} cannot be written by {outlet.maker.sink}: {reason}{frames}",
            hint=advice
            or "fix the row function, the table or the record and start the worker again; it continues with this "
            "record. on_error='skip' skips such records: runbooks/poison-record.md",
        )
        return False


def _name(outlet: Outlet) -> str:
    function = outlet.maker.sink.row or outlet.maker.sink.write
    return str(getattr(function, "__qualname__", function))

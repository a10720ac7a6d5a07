"""One processor of one task, with an input, a table and an output."""

from __future__ import annotations

from typing import Any

import structlog

from pipeline import App, Batch, Context, Event, OnError
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import declared_table
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.table import RuntimeTable, TaskOverlay
from pipeline.api.topic_limits import Accepted
from pipeline.app import declared_app
from pipeline.core.names import TaskId, TopicPartition
from pipeline.ports import Output
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.processor import Processor
from pipeline.testing import ManualClock
from pipeline.testing.memory_log import MemoryRecord
from pipeline.testing.memory_store import MemoryStores

TASK = TaskId("app", "main", 0)
BAD = 13


class Rig:
    """An app with one input, one table and one output; a processor of one task of it."""

    def __init__(self) -> None:
        self.app = App("app")
        self.inputs = self.app.topic("in", key=str, value=int)
        self.sums = self.app.table("sums", key=str, value=int)
        self.outs = self.app.topic("out", key=str, value=int)
        self.stores = MemoryStores()
        self.log = structlog.testing.CapturingLogger()
        self.calls: list[Any] = []
        self.largest_letter = 1_000_000

    def start(self, group: DeclaredGroup | None = None) -> Processor:
        sums, topics = declared_table(self.sums), declared_app(self.app).topics
        self.overlay = TaskOverlay()
        self.table: RuntimeTable[str, int] = RuntimeTable(sums, self.stores.open(TASK), self.overlay)
        senders: Any = {
            t: (t.name, t.key.encode, t.value.admit, Accepted(t.name, 1000)) for t in topics.values()
        }
        self.context = RuntimeContext({sums: self.table}, senders, lambda r: r.factory())
        letters = DeadLetters(TASK, ManualClock(), self.largest_letter)
        self.processor = Processor(
            TASK,
            group or declared_app(self.app).main,
            self.context,
            self.overlay,
            letters,
            self.log,
            {},
            {"in": "1", "other": "2"},
        )
        return self.processor

    def process(self, *values: int | bytes | None, **more: Any) -> None:
        self.processor.process("in", records(*values, **more))

    def add(self, event: Event[str, int], ctx: Context) -> None:
        """Write and send first, then raise at a bad value, so that there are effects to undo."""
        self.calls.append(event.value)
        total = ctx.table(self.sums).get(event.key, 0) + event.value
        ctx.table(self.sums)[event.key] = total
        ctx.table(self.sums)[f"last-{event.key}"] = event.value
        ctx.send(self.outs, event.key, total)
        if event.value == BAD:
            raise ValueError("unlucky")

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        """Like `add`, for batches."""
        self.calls.append(list(batch.values))
        for event in batch:
            total = ctx.table(self.sums).get(event.key, 0) + event.value
            ctx.table(self.sums)[event.key] = total
            ctx.send(self.outs, event.key, total)
        if BAD in batch.values:
            raise ValueError("unlucky")

    @property
    def rows(self) -> dict[str, int]:
        return dict(self.table.items())

    @property
    def sent(self) -> list[tuple[str, bytes | None]]:
        return [(output[0], output[2]) for output in self.context.outputs]


def records(
    *values: int | bytes | None, start: int = 100, key: bytes | None = b"k", headers: Any = ()
) -> list[MemoryRecord]:
    data = [str(value).encode() if isinstance(value, int) else value for value in values]
    return [
        MemoryRecord(TopicPartition("in", 0), start + n, Output("in", key, content, 5_000 - n, headers))
        for n, content in enumerate(data)
    ]


def start(rig: Rig, on_error: OnError, *, batch: bool = False) -> Rig:
    if batch:
        rig.app.batch_handler(rig.inputs, on_error=on_error)(rig.add_all)
    else:
        rig.app.handler(rig.inputs, on_error=on_error)(rig.add)
    rig.start()
    return rig

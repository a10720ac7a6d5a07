"""An app whose tasks own several partitions each, for tests of tools: counts of keys, outputs and dead letters."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import App, Context, Event
from pipeline.api.bindings import OnError
from pipeline.core.names import TaskId
from pipeline.testing import TestDriver
from tests.support.runtime.format_1 import start_in_format_1

__all__ = ["BAD", "PARTITIONS", "TASKS", "Several"]

PARTITIONS, TASKS = 6, 2
BAD = 13


class Several:
    """Counts the records of each key, by partition. `on_error` applies to a BAD number until `fixed`.

    `tasks`: None for one task for each partition, in a journal of format 1.
    """

    def __init__(
        self, *, tasks: int | None = TASKS, partitions: int = PARTITIONS, on_error: OnError = "dead_letter"
    ) -> None:
        self.app = App("several", tasks=tasks)
        self.numbers = self.app.topic("numbers", key=str, value=int)
        self.out = self.app.topic("out", key=str, value=int)
        self.counts = self.app.table("counts", key=str, value=int)
        self.fixed = False
        self.app.handler(self.numbers, on_error=on_error)(self.count)
        self.driver = TestDriver(self.app, partitions=partitions)
        if tasks is None:
            start_in_format_1(self.driver)

    def count(self, event: Event[str, int], ctx: Context) -> None:
        if event.value == BAD and not self.fixed:
            raise ValueError("unlucky")
        table = ctx.table(self.counts)
        table[event.key] = table.get(event.key, 0) + 1
        ctx.send(self.out, event.key, event.value)

    @classmethod
    def begun(cls, *, tasks: int | None = TASKS) -> Several:
        """With a running worker that has counted one record of key `a` in each partition."""
        several = cls(tasks=tasks)
        several.send("a")
        several.driver.run()
        return several

    def send(self, key: str, value: int = 1, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        """Send a record to each of these partitions."""
        for partition in partitions:
            self.driver.send(self.numbers, key, value, partition=partition)

    @staticmethod
    def task(number: int) -> TaskId:
        return TaskId("several", "main", number)

"""The app of the runtime tests: a running sum per key, in a table and an output topic."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pipeline import App, Context, Dedup, Event, Table, Topic
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.testing import TestDriver
from tests.support.checker import Checker, MemoryLog, Promise, made_from


class Sum(msgspec.Struct, frozen=True):
    """The number of inputs of a key, and their sum."""

    count: int
    total: int


class Sums:
    """The app with its tables and topics, and the expected results of its inputs."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        deferred: bool = False,
        seed: int = 0,
        settings: WorkerSettings | None = None,
        dedup: Dedup[str, int] | None = None,
        tasks: int | None = None,
    ) -> None:
        self.app = App("sums", tasks=tasks)
        self.numbers: Topic[str, int] = self.app.topic("numbers", key=str, value=int, dedup=dedup)
        self.sums: Topic[str, Sum] = self.app.topic("sums", key=str, value=Sum)
        self.totals: Table[str, Sum] = self.app.table("totals", key=str, value=Sum)
        self.app.handler(self.numbers)(self._add)
        self.driver = TestDriver(
            self.app, partitions=partitions, deferred=deferred, seed=seed, settings=settings
        )
        self.sent: list[tuple[str, int]] = []
        self.checker = Checker(
            MemoryLog(self.driver.broker),
            Promise("sums.main", "numbers", "sums", ids=dedup is not None, row=True),
        )

    @classmethod
    def begun(cls) -> Sums:
        """The app with a running worker that has handled one input."""
        sums = cls()
        sums.send(1)
        sums.driver.run()
        return sums

    @property
    def task(self) -> TaskId:
        return TaskId("sums", "main", 0)

    def send(self, *numbers: int, key: str = "a") -> None:
        """Produce inputs of one key, each with an id."""
        for number in numbers:
            self.driver.send(self.numbers, key, number, event_id=b"%d" % len(self.sent))
            self.sent.append((key, number))

    def send_again(self, places: Iterable[int]) -> None:
        """Produce inputs again, by their indexes in the sent inputs."""
        for place in places:
            key, number = self.sent[place]
            self.driver.send(self.numbers, key, number, event_id=b"%d" % place)

    def check(self) -> None:
        """Check the outputs of each key, in order, and the table against a fold. Verify committed records."""
        self.checker.check()
        expected: dict[str, list[Sum]] = {}
        for key, number in self.sent:
            values = expected.setdefault(key, [])
            before = values[-1] if values else Sum(0, 0)
            values.append(Sum(before.count + 1, before.total + number))
        found: dict[str, list[Sum]] = {}
        for event in self.driver.outputs(self.sums):
            found.setdefault(event.key, []).append(event.value)
        assert found == expected
        assert self.driver.table(self.totals) == {key: values[-1] for key, values in expected.items()}

    def _add(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.totals)
        before = table.get(event.key, Sum(0, 0))
        after = Sum(before.count + 1, before.total + event.value)
        table[event.key] = after
        ctx.send(self.sums, event.key, after, headers=made_from("sums.main", event))

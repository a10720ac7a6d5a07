"""The flights app in memory with generated flights, and a fold of its input that shares no code with it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from examples.flights.app import Flight, app, by_carrier, by_tail
from pipeline.config import WorkerSettings
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import TaskId
from pipeline.runtime.commit.journal_reader import read_entries
from pipeline.runtime.environment import Environment
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.checkpointed import EAGER

__all__ = ["CARRIERS", "PastFlights", "flight", "plain", "reading"]

CARRIERS = ("AA", "B6", "DL", "UA", "WN")


def flight(number: int, carrier: str) -> Flight:
    """The flight with this number. The same number gives the same flight."""
    chosen = random.Random(number)
    tail = chosen.choice(["N1", "N2", "N3", None])
    delay = chosen.choice([None, -3, 0, 12, 47, chosen.randrange(500)])
    return Flight(carrier, number, tail, "JFK", chosen.choice(["LAX", "ORD"]), delay, 700 + number)


class PastFlights:
    """The app after several runs, each with a few flights and at least one commit for each task with input."""

    def __init__(self, *, checkpoints: bool = False, runs: int = 6, partitions: int = 2) -> None:
        settings = EAGER if checkpoints else WorkerSettings(worker_id="w1")
        self.driver = TestDriver(app, partitions=partitions, settings=replace(settings, worker_id="w1"))
        self.flights = 0
        for _ in range(runs):
            self.fly()

    def fly(self, count: int = 7) -> None:
        """Produce flights, and process them."""
        for _ in range(count):
            made = flight(self.flights, CARRIERS[self.flights % len(CARRIERS)])
            self.driver.send(by_carrier, made.carrier, made)
            self.driver.send(by_tail, made.tailnum, made)
            self.flights += 1
        self.driver.run()

    def task(self, partition: int, group: str = "main") -> TaskId:
        return TaskId(app.name, group, partition)

    def entries(self, task: TaskId) -> list[JournalEntry]:
        """The entries that its journal has now."""
        reader = MemoryJournalReader(self.driver.broker)
        bounds = reader.bounds(task.journal)
        return list(read_entries(task, reader, bounds.start, bounds.stable_end, None))

    def reading_environment(self) -> Environment:
        """An environment in which a use of producers, group members or local states is an error."""
        return replace(self.driver.environment(), producers=_FORBIDDEN, members=_FORBIDDEN, stores=_FORBIDDEN)

    def records(self) -> dict[str, int]:
        """The number of records of each topic, those of open and aborted transactions included."""
        broker = self.driver.broker
        return {name: len(broker.records(name, committed=False)) for name in broker.topics()}

    def folded(self, task: TaskId, positions: Mapping[str, int]) -> dict[str, Any]:
        """The table `totals` of a task by carrier, from its input records up to these positions."""
        rows: dict[str, Any] = {}
        for record in self.driver.broker.records(by_carrier.name):
            if record.partition() != task.number or record.offset() >= positions[by_carrier.name]:
                continue
            read = json.loads(record.value() or b"")
            row = rows.setdefault(
                (record.key() or b"").decode(), {"flights": 0, "departed": 0, "minutes": 0, "worst": 0}
            )
            row["flights"] += 1
            if read["dep_delay"] is not None:
                row["departed"] += 1
                row["minutes"] += read["dep_delay"]
                row["worst"] = max(row["worst"], read["dep_delay"])
        return rows


class _Forbidden:
    """Fails at any use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used by a command that only reads")


_FORBIDDEN: Any = _Forbidden()


def reading(driver: TestDriver) -> Environment:
    """The environment of a driver, in which a use of producers, group members or local states is an error."""
    return replace(driver.environment(), producers=_FORBIDDEN, members=_FORBIDDEN, stores=_FORBIDDEN)


def plain(value: object) -> Any:
    """The value as JSON has it."""
    return json.loads(msgspec.json.encode(value))

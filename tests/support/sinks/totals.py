"""The app of the sink tests: amounts per account, as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipeline import App, Delete, Event, Postgres, Topic
from pipeline.api.sinks import Row
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.runtime.status import AppStatus, read_status
from pipeline.testing import TestDriver
from pipeline.testing.databases import MemoryDatabase
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

__all__ = ["Totals"]

DSN = "postgresql://pipeline:s3cret@db.example:5432/shop"


def last_amount(event: Event[str, int | None]) -> Row:
    """A row for an amount, a deletion for a tombstone."""
    return (
        Delete({"account": event.key})
        if event.value is None
        else {"account": event.key, "amount": event.value}
    )


def entry(event: Event[str, int | None]) -> Mapping[str, Any]:
    """A row for each record."""
    return {"account": event.key, "amount": event.value, "place": f"{event.partition}/{event.offset}"}


class Totals:
    """The app with its tables and topics, and the expected rows of its inputs: the last amounts, and a ledger."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        deferred: bool = False,
        seed: int = 0,
        settings: WorkerSettings | None = None,
        on_error: Any = "stop",
        tasks: int | None = None,
    ) -> None:
        self.app = App("totals")
        self.amounts: Topic[str, int | None] = self.app.topic("amounts", key=str, value=int | None)
        self.last: Postgres[str, int | None] = Postgres(DSN, "last_amounts", row=last_amount, key="account")
        self.ledger: Postgres[str, int | None] = Postgres(DSN, "ledger", mode="append", row=entry)
        group = self.app.group("rows")
        group.sink(self.amounts, self.last, on_error=on_error)
        group.sink(self.amounts, self.ledger, on_error=on_error)
        self.choose_tasks(tasks)
        self.driver = TestDriver(
            self.app, partitions=partitions, deferred=deferred, seed=seed, settings=settings
        )
        self.sent: list[tuple[str, int | None]] = []

    def choose_tasks(self, tasks: int | None) -> None:
        """The number of tasks from the next start on."""
        (group,) = declared_app(self.app).groups
        group.tasks = tasks

    def status(self) -> AppStatus:
        """What `pipeline status` would show. It is read from Kafka only."""
        broker = self.driver.broker
        return read_status(
            "totals", MemoryCluster(broker), MemoryJournalReader(broker), self.driver.clock.wall_ms()
        )

    @classmethod
    def begun(cls) -> Totals:
        """The app with a running worker that has written one amount."""
        totals = cls()
        totals.send(1)
        totals.driver.run()
        return totals

    @property
    def database(self) -> MemoryDatabase:
        return self.driver.databases.of(self.last)

    @property
    def task(self) -> TaskId:
        return TaskId("totals", "rows", 0)

    def send(self, *amounts: int | None, key: str = "a") -> None:
        for amount in amounts:
            self.driver.send(self.amounts, key, amount)
            self.sent.append((key, amount))

    def check(self) -> None:
        """Check that each record is in the ledger once, in order per account, and each last amount."""
        expected: dict[str, list[int | None]] = defaultdict(list)
        for key, amount in self.sent:
            expected[key].append(amount)
        found: dict[str, list[int | None]] = defaultdict(list)
        for row in self.driver.rows(self.ledger):
            found[row["account"]].append(row["amount"])
        assert found == expected
        last = {key: amounts[-1] for key, amounts in expected.items() if amounts[-1] is not None}
        assert {row["account"]: row["amount"] for row in self.driver.rows(self.last)} == last

"""An app whose handler can be fixed while it runs, for tests of dead letters."""

from __future__ import annotations

from typing import Any

from pipeline import App, Batch, Context, Event, OnError
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import GroupId, TaskId
from pipeline.testing import TestDriver

GROUP = GroupId("orders", "main")


class Orders:
    """Adds up amounts per customer. `bad`: amounts that its handler refuses."""

    def __init__(
        self,
        *,
        partitions: int = 2,
        tasks: int | None = None,
        batch: bool = False,
        on_error: OnError = "dead_letter",
        retries: int = 0,
        seed: int = 0,
        deferred: bool = False,
        settings: WorkerSettings | None = None,
    ) -> None:
        self.bad: set[int] = set()
        self.seen: list[Event[str, int]] = []
        self.app = self.version(batch=batch, on_error=on_error, retries=retries)
        declared_app(self.app).main.tasks = tasks
        self.driver = TestDriver(
            self.app, partitions=partitions, seed=seed, deferred=deferred, settings=settings
        )
        self.sent: list[tuple[str, int]] = []

    def version(self, *, batch: bool = False, on_error: OnError = "dead_letter", retries: int = 0) -> App:
        """Create a version of the app."""
        app = App("orders")
        self.amounts = app.topic("amounts", key=str, value=int)
        self.sums = app.topic("sums", key=str, value=int)
        self.totals = app.table("totals", key=str, value=int)
        register: Any = app.batch_handler if batch else app.handler
        register(self.amounts, on_error=on_error, retries=retries)(self._add_all if batch else self._add)
        return app

    def send(self, *amounts: int, customers: int = 3) -> None:
        """Produce amounts, each with an id, for the customers in turn."""
        for amount in amounts:
            customer = f"customer-{amount % customers}"
            self.driver.send(
                self.amounts, customer, amount, timestamp_ms=1_000 + amount, event_id=b"%d" % amount
            )
            self.sent.append((customer, amount))

    def check(self, without: frozenset[int] = frozenset()) -> None:
        """Check that all other amounts have counted once, in the outputs and in the table."""
        good = [(customer, amount) for customer, amount in self.sent if amount not in without]
        expected: dict[str, int] = {}
        for customer, amount in good:
            expected[customer] = expected.get(customer, 0) + amount
        assert self.driver.table(self.totals) == expected
        outputs = self.driver.outputs(self.sums)
        assert len(outputs) == len(good)
        assert {event.key: event.value for event in outputs} == expected

    @property
    def task(self) -> TaskId:
        return TaskId("orders", "main", 0)

    def _add(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.totals)
        table[event.key] = table.get(event.key, 0) + event.value
        ctx.send(self.sums, event.key, table[event.key])
        self.seen.append(event)
        if event.value in self.bad:
            raise ValueError(f"{event.value} is not an amount")

    def _add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self._add(event, ctx)

"""The app whose restart is measured, and its worker with a clock on every call: run by `restart_worker`.

Customers fill a table, one row each; orders look a row up, change it and answer. One group, hence one task for each
partition number of the two topics.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from benchmarks import NOT_DECLARED
from benchmarks.timeline import Timeline, watched
from pipeline import App, Batch, Context, Event, KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.cli.logs import configure_logs
from pipeline.core.names import TaskId
from pipeline.ports import Step
from pipeline.processes.signals import heard_signals
from pipeline.processes.wiring import build_environment, run_worker
from pipeline.runtime.worker import Worker

__all__ = ["HOLD", "PARTITIONS", "STATE", "TIMELINE", "held", "make_app", "work"]

PARTITIONS = 4
# Files of the worker's directory.
STATE = "state"
TIMELINE = "timeline.json"
HOLD = "hold"


class Customer(msgspec.Struct, frozen=True):
    """A row of the table."""

    name: str
    orders: int = 0
    cents: int = 0


class Order(msgspec.Struct, frozen=True):
    """An input that asks for an answer. `number` is different in each."""

    number: int
    cents: int


class Receipt(msgspec.Struct, frozen=True):
    """An output."""

    number: int
    name: str
    orders: int


def held(directory: Path, partition: int) -> Path:
    """The file that says that this task's next commit has been sent and will not be asked for."""
    return directory / f"held-{partition}"


def make_app(name: str) -> App:
    """The app, over topics that begin with its name."""
    app = App(name)
    customers = app.topic(f"{name}-customers", key=str, value=Customer)
    orders = app.topic(f"{name}-orders", key=str, value=Order)
    receipts = app.topic(f"{name}-receipts", key=str, value=Receipt)
    accounts = app.table("accounts", key=str, value=Customer)

    @app.batch_handler(customers)
    def know(batch: Batch[str, Customer], ctx: Context) -> None:
        table = ctx.table(accounts)
        for event in batch:
            table[event.key] = event.value

    @app.handler(orders)
    def sell(event: Event[str, Order], ctx: Context) -> None:
        table = ctx.table(accounts)
        before = table[event.key]
        after = Customer(before.name, before.orders + 1, before.cents + event.value.cents)
        table[event.key] = after
        ctx.send(receipts, event.key, Receipt(event.value.number, after.name, after.orders))

    return app


class _Steps:
    """`ports.Steps`: ends the timeline with the first commit of every task, and holds commits when asked to.

    A held commit has delivered its outputs and its entry and is never asked for: its transaction stays open,
    for a kill that comes at the worst moment.
    """

    def __init__(self, timeline: Timeline, directory: Path) -> None:
        self._timeline = timeline
        self._directory = directory
        self._lock = threading.Lock()
        self._live: set[int] = set()
        self._committed: set[int] = set()

    def reached(self, step: Step, task: TaskId) -> None:
        if self._timeline.open:
            self._timeline.reached(step, task)
            if step in {Step.AFTER_ACQUIRE, Step.AFTER_APPLY}:
                self._count(step, task.number)
        elif step is Step.AFTER_FLUSH and (self._directory / HOLD).exists():
            held(self._directory, task.number).touch()
            threading.Event().wait()

    def _count(self, step: Step, partition: int) -> None:
        with self._lock:
            if step is Step.AFTER_ACQUIRE:
                self._live.add(partition)
            elif partition in self._live:
                self._committed.add(partition)
            if self._timeline.open and len(self._committed) == PARTITIONS:
                self._timeline.finish(self._directory / TIMELINE)


def work(entered_s: float, name: str, servers: str, directory: Path) -> None:
    """What `pipeline worker` does, with its default settings, until SIGTERM."""
    timeline = Timeline()
    timeline.mark("entered", entered_s)
    timeline.mark("imported")
    configure_logs("info")
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(state_dir=directory / STATE, worker_id="bench", topics_dir=NOT_DECLARED),
    )
    app = make_app(name)
    environment = build_environment(declared_app(app), settings, steps=_Steps(timeline, directory))
    # The one request made before there was a world to watch passes for ours.
    worker = Worker(declared_app(app), watched(environment, timeline), settings.worker)
    stop = threading.Event()
    with heard_signals(stop):
        run_worker(worker, stop, settings.worker)

"""`table show --at`, `table history` and `debug` as users run them, beside a worker with checkpoints."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
import pytest

from examples.flights.app import Flight
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId
from pipeline.errors import TruncatedError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.producer import KafkaProducers
from pipeline.ports import Output, Record
from pipeline.runtime.commit.journal_reader import read_entries
from tests.ops.conftest import Command
from tests.support.kafka.producing import ordered_producer

pytestmark = pytest.mark.kafka

APP = """
from examples.flights.app import Delay, Flight, delay_after
from pipeline import App, Context, Event

app = App("{name}")
flights = app.topic("{name}-flights", key=str, value=Flight)
delays = app.topic("{name}-delays", key=str, value=Delay)
totals = app.table("totals", key=str, value=Delay)


@app.handler(flights, on_error="dead_letter")
def add_delay(event: Event[str, Flight], ctx: Context) -> None:
    table = ctx.table(totals)
    total = delay_after(table.get(event.key, Delay()), event.value)
    if event.value.distance < 0:
        raise ValueError(f"a distance of {{event.value.distance}} miles")
    table[event.key] = total
    ctx.send(delays, event.key, total)
"""
SETTINGS = """
[worker]
checkpoint_store = "file://{store}"
checkpoint_interval_s = 0.2
checkpoint_journal_bytes = 1
"""
CARRIERS = ("AA", "B6", "DL", "UA")


class Flights:
    """A worker of the flights app with one task, and its checkpoints in a directory."""

    def __init__(self, command: Command, name: str) -> None:
        self.command = command
        self.name = name
        self.topic = f"{name}-flights"
        self.flights: list[Any] = []
        (command.directory / "store").mkdir()
        (command.directory / "past.py").write_text(APP.format(name=name))
        (command.directory / "pipeline.toml").write_text(SETTINGS.format(store=command.directory / "store"))
        for topic in (self.topic, f"{name}-delays"):
            command.create(topic, partitions=1)
        self.worker = command.start("worker", "past:app", "--worker-id", "w1", stderr=subprocess.DEVNULL)

    def produce(self, count: int) -> None:
        """Produce flights in one transaction, which has a marker at its end."""
        producer = KafkaProducers(self.command.settings).open(f"{self.name}.flights")
        producer.init()
        producer.begin()
        for _ in range(count):
            producer.send([Output(self.topic, *self._flight())])
        producer.flush()
        producer.commit()
        producer.close()

    def produce_bad(self) -> None:
        """Produce a flight that the handler refuses, without a marker.

        After a minute, the worker would commit a position past a marker at the end, and truncate its journal.
        """
        key, value, time_ms = self._flight(distance=-1)
        producer = ordered_producer(self.command.settings.bootstrap_servers)
        producer.produce(self.topic, value, key, timestamp=time_ms)
        assert producer.flush(60) == 0

    def _flight(self, distance: int = 700) -> tuple[bytes, bytes, int]:
        """Key, value and time of the next flight."""
        n = len(self.flights)
        delay = None if n % 5 == 0 else n * 7 % 50 - 10
        value = Flight(CARRIERS[n % 4], n, f"N{n % 3}", "JFK", "LAX", delay, distance)
        self.flights.append(value)
        return value.carrier.encode(), msgspec.json.encode(value), 1_700_000_000_000 + n

    def rows(self, *arguments: str) -> list[Any]:
        """The documents that a command prints, one on each line."""
        return [json.loads(line) for line in self.command.run(*arguments, "--json")[0].splitlines()]

    def entries(self) -> list[JournalEntry]:
        """The entries that the journal has now; none before the worker has created it."""
        task = TaskId(self.name, "main", 0)
        with (
            closing(KafkaCluster(self.command.settings)) as cluster,
            closing(KafkaJournalReader(self.command.settings)) as reader,
        ):
            if not cluster.describe([task.journal.topic]):
                return []
            bounds = reader.bounds(task.journal)
            return list(read_entries(task, reader, bounds.start, bounds.stable_end, None))

    def checkpointed(self) -> bool:
        """Whether all flights are processed, and a checkpoint has been made since."""
        try:
            entries = self.entries()
        except TruncatedError:  # just now, because of a checkpoint
            return False
        processed = entries[-1].entry.positions.get(self.topic, 0) if entries else 0
        return processed >= len(self.flights) and entries[-1].entry.kind is EntryKind.CHECKPOINT


@pytest.fixture
def flown(
    command: Command, unique_name: str, wait_until: Callable[[Callable[[], bool], str], None]
) -> Iterator[Flights]:
    """A running worker after four commits with checkpoints, and a flight that became a dead letter."""
    rig = Flights(command, unique_name)
    for produce in (partial(rig.produce, 12),) * 3 + (rig.produce_bad,):
        produce()
        wait_until(rig.checkpointed, f"a checkpoint after {len(rig.flights)} flights")
    yield rig
    rig.worker.send_signal(signal.SIGTERM)
    rig.worker.wait(timeout=90)


def folded(records: list[Record], before: int) -> dict[str, Any]:
    """The totals by carrier of the flights below an offset."""
    rows: dict[str, Any] = {}
    for record in records:
        value = json.loads(record.value())
        if record.offset() >= before or value["distance"] < 0:
            continue
        row = rows.setdefault(value["carrier"], {"flights": 0, "departed": 0, "minutes": 0, "worst": 0})
        row["flights"] += 1
        if value["dep_delay"] is not None:
            row["departed"] += 1
            row["minutes"] += value["dep_delay"]
            row["worst"] = max(row["worst"], value["dep_delay"])
    return rows


def test_the_past_of_a_running_app_is_shown(flown: Flights) -> None:
    """One worker serves the whole test, because at its end it still runs and has written nothing more."""
    rig = flown
    app = ("--app", "past:app")
    topics = (rig.topic, f"{rig.name}-delays", f"{rig.name}.main.dead-letters")
    before = {topic: len(rig.command.records(topic)) for topic in topics}
    records = rig.command.records(rig.topic)
    entries = rig.entries()
    assert entries[0].entry.kind is not EntryKind.GENESIS
    for entry in (entries[0].entry, entries[len(entries) // 2].entry):
        rows = rig.rows("table", "show", "totals", *app, "--task", "0", "--at", str(entry.seq))
        assert {row["key"]: row["value"] for row in rows} == folded(records, entry.positions[rig.topic])
    _, said = rig.command.run("table", "show", "totals", *app, "--task", "0", "--at", "1", code=1)
    assert f"--at {entries[0].entry.seq}" in said

    changes = rig.rows("table", "history", "totals", "AA", *app)
    [live] = rig.rows("table", "show", "totals", "AA", *app, "--at", "2100-01-01T00:00:00Z")
    start = folded(records, entries[0].entry.positions[rig.topic])["AA"]["flights"]
    added = [
        change["new"]["flights"] - (change["old"] or {"flights": 0})["flights"]
        for change in changes
        if change["old_known"]
    ]
    assert start + sum(added) == live["value"]["flights"]
    assert {change["worker"] for change in changes} == {"w1"}

    [failed] = rig.rows("deadletters", "list", "past:app")
    place = f"{rig.topic}/0/{records[-1].offset()}"
    run = rig.command.json("debug", "past:app", place, "--yes")
    assert run["outcome"] == "dead_letter"
    assert run["error"] == failed["error"] == "ValueError: a distance of -1 miles"
    assert run["dead_letter"]["same_error"]
    assert run["state"]["checkpoint"] is not None
    stepped, _ = rig.command.run("debug", "past:app", place, "--yes", "--pdb", stdin="n\nn\nc\n")
    assert "failed and became a dead letter" in stepped
    assert "the same error" in stepped
    rig.command.run("debug", "past:app", place, "--yes", "--pdb", stdin="q\n", code=130)
    assert "add --yes" in rig.command.run("debug", "past:app", place, code=2)[1]

    assert {topic: len(rig.command.records(topic)) for topic in topics} == before
    assert rig.worker.poll() is None
    later = [entry.entry.kind for entry in rig.entries() if entry.entry.seq > entries[-1].entry.seq]
    assert EntryKind.ACQUIRE not in later  # nothing has fenced the worker

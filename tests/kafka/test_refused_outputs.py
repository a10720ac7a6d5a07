"""Outputs that a real broker refuses, because settings or clocks differ: no other record is lost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ops.dead_letters.letters import Choice, dead_letter_topic, read_letters
from pipeline.ops.reading import committed_records
from pipeline.ports import SystemClock, TopicSpec
from pipeline.processes.wiring import build_environment
from pipeline.runtime.worker import Worker
from tests.conftest import KafkaUnderTest
from tests.support.kafka.producing import ordered_producer

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0
HOUR_MS = 3_600_000
COUNT = 300
# The setting that causes the refusal, and the property of the output that it refuses.
BAD: dict[int, tuple[str, dict[str, Any]]] = {
    100: ("message.timestamp.after.max.ms", {"timestamp_ms": 2 * HOUR_MS}),
    101: ("cleanup.policy", {"key": None}),
    200: ("max.message.bytes", {"value": "x" * 50_000}),
}
CHANGED = {
    "message.timestamp.after.max.ms": str(HOUR_MS),
    "cleanup.policy": "compact",
    "max.message.bytes": "20000",
}


class Ahead(SystemClock):
    """A clock that is hours ahead of the brokers' clocks."""

    def wall_ms(self) -> int:
        return super().wall_ms() + 3 * HOUR_MS


@pytest.mark.parametrize("clock", [SystemClock(), Ahead()], ids=["the brokers' time", "hours ahead"])
def test_settings_that_change_under_a_worker_cost_only_the_records_that_they_refuse(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, clock: SystemClock
) -> None:
    """After a refused commit, the worker must find the refused records, by the settings or with smaller commits."""
    name = unique_name[-40:].strip("-")
    app = App(name)
    inputs = app.topic(f"{name}-in", key=str, value=int)
    outs = app.topic(f"{name}-out", key=str | None, value=str)
    sums = app.table("sums", key=str, value=int)

    @app.handler(inputs, on_error="dead_letter")
    def add(event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(sums)
        table[event.key] = total = table.get(event.key, 0) + event.value
        sent: dict[str, Any] = {"key": event.key, "value": str(total)}
        if event.value in BAD:
            sent |= BAD[event.value][1]
            if "timestamp_ms" in sent:
                sent["timestamp_ms"] += time.time_ns() // 1_000_000
        ctx.send(outs, **sent)

    settings = KafkaSettings(kafka.bootstrap_servers)
    with closing(KafkaCluster(settings)) as cluster:
        any_time = {"message.timestamp.after.max.ms": str(2**63 - 1)}
        cluster.create([TopicSpec(topic, 1, config=any_time) for topic in declared_app(app).topics])
    worker_settings = WorkerSettings(worker_id="odd", state_dir=tmp_path / "state", commit_interval_ms=50)
    environment = replace(
        build_environment(declared_app(app), Settings(settings, worker_settings)), clock=clock
    )
    worker = Worker(declared_app(app), environment, worker_settings)
    try:
        worker.start()
        _send(kafka, inputs.name, 1)
        _run(worker, lambda: worker.progress().commits == 1 and worker.idle)
        environment.cluster.configure(outs.name, CHANGED)
        _send(kafka, inputs.name, *range(2, COUNT))
        _run(worker, lambda: worker.progress().dead_lettered >= len(BAD) and _settled(worker))
        letters = list(
            read_letters(
                dead_letter_topic(declared_app(app).main.id, environment.cluster), Choice(), environment
            )
        )
        info = environment.cluster.describe([outs.name])[outs.name]
        with closing(environment.journals()) as reader, closing(environment.sources.open("reader")) as source:
            found = [
                (record.key(), record.value())
                for record in committed_records(info, reader, source, environment.clock)
            ]
        worker.stop()
    finally:
        worker.close()
    errors = {int(letter.value or b""): letter.letter.error for letter in letters}
    assert errors.keys() == BAD.keys()
    by_broker = [value for value, error in errors.items() if error.startswith("RefusedOutputError")]
    assert by_broker == ([100] if isinstance(clock, Ahead) else [])
    assert all(BAD[value][0] in error for value, error in errors.items() if value not in by_broker)
    totals: dict[str, int] = defaultdict(int)
    expected = []
    for value in range(1, COUNT):
        if value not in BAD:
            totals[f"k{value % 7}"] += value
            expected.append((b"k%d" % (value % 7), b'"%d"' % totals[f"k{value % 7}"]))
    assert found == expected


def _send(kafka: KafkaUnderTest, topic: str, *values: int) -> None:
    producer = ordered_producer(kafka.bootstrap_servers)
    for value in values:
        producer.produce(topic, b"%d" % value, b"k%d" % (value % 7), 0)
    assert producer.flush(DEADLINE_S) == 0


def _settled(worker: Worker) -> bool:
    """Whether all inputs are committed."""
    (run,) = worker.runs
    return worker.idle and all(
        max(task.applied.positions.values()) >= COUNT - 1 for task in run.tasks.values()
    )


def _run(worker: Worker, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        worker.step()
        assert not worker.failures, worker.failures
        assert time.monotonic() < deadline, worker.progress()

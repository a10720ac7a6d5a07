"""Retries on a real Kafka: a waiting partition is paused, and delays neither other partitions nor a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.processes.wiring import build_environment
from pipeline.runtime.worker import Worker
from tests.conftest import KafkaUnderTest
from tests.support.kafka.producing import ordered_producer

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

DEADLINE_S = 60.0
EACH = 5_000


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_partition_that_waits_is_paused_and_holds_up_neither_the_other_one_nor_a_stop(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, tasks: int
) -> None:
    """The client has its own queue: records that it fetched before the pause must be returned later, once."""
    app = App(unique_name[-40:].strip("-"))
    declared_app(app).main.tasks = tasks
    inputs = app.topic(f"{app.name}-in", key=bytes | None, value=int)
    away = [True]
    seen: dict[int, list[int]] = {0: [], 1: []}

    @app.handler(inputs, retries=10, retry_delay_s=0.2)
    def handle(event: Event[bytes | None, int], ctx: Context) -> None:
        if event.value == 10 and event.partition == 0 and away[0]:
            raise ConnectionError("the service is away")
        seen[event.partition].append(event.value)

    with closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster:
        cluster.create([TopicSpec(inputs.name, 2)])
    producer = ordered_producer(kafka.bootstrap_servers)
    for number in range(EACH):
        for partition in (0, 1):
            producer.produce(inputs.name, b"%d" % number, None, partition)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0

    settings = WorkerSettings(worker_id="r", state_dir=tmp_path, commit_interval_ms=10, max_poll_records=500)
    for last in (False, True):
        environment = build_environment(
            declared_app(app), Settings(KafkaSettings(kafka.bootstrap_servers), settings)
        )
        worker = Worker(declared_app(app), environment, settings)
        try:
            worker.start()
            if not last:
                _run(worker, _waiting(worker, seen[1]))
                task = worker.runs[0].tasks[0]
                assert len(seen[0]) == 10
                assert 0 < getattr(task, "backlog_records", 0) <= 2 * 500 + 1_000
            else:
                away[0] = False
                _run(worker, lambda: len(seen[0]) == EACH)
            began_s = time.monotonic()
            worker.stop()
            assert time.monotonic() - began_s < DEADLINE_S  # not the minutes of its summed waits
        finally:
            worker.close()
    assert seen == {0: list(range(EACH)), 1: list(range(EACH))}


def _waiting(worker: Worker, others: list[int]) -> Callable[[], bool]:
    return lambda: len(others) == EACH and worker.progress().retried >= 3


def _run(worker: Worker, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        worker.step()
        assert not worker.failures, worker.failures
        assert time.monotonic() < deadline, worker.progress()

"""Worker processes that write to a real PostgreSQL from a real Kafka, ended at every step: rows stay exact."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.runtime.steps import SINK_STEPS
from tests.support.sinks.harness import SinkBench
from tests.support.sinks.server import PostgresUnderTest

pytestmark = pytest.mark.kafka

STARTING = ["SINK_AFTER_POSITIONS", "SINK_BEFORE_CLAIM", "SINK_AFTER_CLAIM"]
RUNNING = [
    "SINK_BEFORE_BEGIN",
    "SINK_AFTER_FENCE",
    "SINK_AFTER_ROWS",
    "SINK_DURING_COMMIT",
    "SINK_AFTER_COMMIT",
]
STOPPING = ["SINK_AFTER_RELEASE"]  # tests/runtime/sinks/test_sinks.py


@pytest.fixture
def bench(
    kafka: KafkaUnderTest, postgres: PostgresUnderTest, unique_name: str, tmp_path: Path
) -> Iterator[SinkBench]:
    """A topic, a database, and workers, whose tasks own two or three partitions."""
    name = unique_name[-40:].strip("-")
    made = SinkBench(kafka.bootstrap_servers, name, tmp_path, postgres, partitions=5, tasks=2)
    yield made
    made.close()


def test_every_step_of_a_sink_is_killed_at() -> None:
    """A new step must be, too; here is where to say when it is reached."""
    assert sorted([*STARTING, *RUNNING, *STOPPING]) == sorted(step.name for step in SINK_STEPS)


@pytest.mark.kills
def test_a_kill_between_the_rows_and_the_commit_and_one_behind_it_leave_rows_exact(bench: SinkBench) -> None:
    """The two that would lose or double rows, if anything did."""
    bench.send(200)
    bench.kill_at("SINK_AFTER_ROWS")
    bench.kill_at("SINK_AFTER_COMMIT")
    bench.finish()


@pytest.mark.kills
@pytest.mark.parametrize("point", [*STARTING, *RUNNING])
def test_three_kills_in_a_row_at_each_step_of_a_sink_leave_rows_exact(bench: SinkBench, point: str) -> None:
    """One may be survived by luck; the second meets what the first has left."""
    bench.send(200)
    if point == "SINK_AFTER_POSITIONS":
        bench.kill_at(point, running=False)
    else:
        for nth in (1, 2, 3):
            bench.kill_at(point, nth if point in RUNNING else 1, running=point in RUNNING)
            bench.send(20)
    bench.finish()


@pytest.mark.kills
def test_kills_between_starts_with_other_numbers_of_tasks_leave_rows_exact(bench: SinkBench) -> None:
    """Rows of positions name partitions: a start that trusted the tasks of the one before would lose some."""
    bench.send(200)
    for tasks, point in (
        (2, "SINK_AFTER_ROWS"),
        (5, "SINK_AFTER_COMMIT"),
        (1, "SINK_AFTER_CLAIM"),
        (3, "SINK_AFTER_ROWS"),
    ):
        bench.tasks = tasks
        bench.kill_at(point, running=point != "SINK_AFTER_CLAIM")
        bench.send(20)
    bench.tasks = 4
    bench.finish()


@pytest.mark.kills
@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("point", ["SINK_BEFORE_BEGIN", "SINK_AFTER_FENCE", "SINK_AFTER_ROWS"])
def test_a_worker_that_was_stopped_past_its_take_over_writes_nothing_more(
    bench: SinkBench, point: str, tasks: int
) -> None:
    """It may hold the rows' locks: its successor ends its session; and it wakes up with rows to write.

    The successor may have another number of tasks, so that each of its tasks shares rows with several of the zombie's.
    """
    bench.send(200)
    zombie = bench.ended_at(point, how="SIGSTOP", worker_id="zombie")
    bench.tasks = tasks
    successor = bench.worker()
    bench.send(50)
    bench.catch_up(successor)
    zombie.send_signal(signal.SIGCONT)
    bench.wait_until(lambda: bench.log_event_count("task_fenced") > 0, "the zombie to find out")
    bench.send(50)
    bench.catch_up(successor)
    bench.stop(zombie)
    bench.catch_up(successor)
    assert bench.stop(successor) == 0, bench.log.read_text()
    bench.check()

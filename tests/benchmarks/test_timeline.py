"""How the way to the first commit is divided into our part and Kafka's."""

from __future__ import annotations

import pytest

from benchmarks.timeline import STAGES, Event, parts
from pipeline.ports import Step

MAIN, RESTORE, OTHER, COMMIT = range(4)


def _step(step: Step, thread: int, at_s: float) -> Event:
    return Event(step.value, thread, at_s, at_s, 0)


# A process that was spawned at 0 and whose first commit was seen at 13, with a stage for each second.
WAY = [
    Event("entered", MAIN, 1, 1),
    Event("imported", MAIN, 2, 2),
    Event("cluster.describe", MAIN, 2.25, 2.5),
    Event("producers.open", RESTORE, 3, 3.1, 0),
    Event("producer.init", RESTORE, 3.1, 3.9),
    _step(Step.AFTER_FENCE, RESTORE, 4),
    Event("reader.bounds", RESTORE, 4.2, 5),
    Event("stores.open", RESTORE, 5, 6, 0),
    Event("reader.read", RESTORE, 6, 6.75),
    _step(Step.BEFORE_BEGIN, RESTORE, 7),
    _step(Step.BEFORE_ACQUIRE, RESTORE, 7),
    Event("producer.commit", RESTORE, 7.5, 8),
    _step(Step.AFTER_COMMIT, RESTORE, 8),
    _step(Step.AFTER_ACQUIRE, RESTORE, 8),
    Event("source.poll", MAIN, 7.9, 8.1),
    Event("source.assign", MAIN, 8.9, 9, 0),
    Event("source.poll", MAIN, 9.2, 9.4),
    Event("source.poll", MAIN, 9.5, 10, 0),
    Event("source.poll", MAIN, 10.2, 10.4),
    _step(Step.BEFORE_BEGIN, COMMIT, 11),
    Event("producer.flush", COMMIT, 11, 11.5),
    Event("producer.commit", COMMIT, 11.5, 12),
    _step(Step.AFTER_COMMIT, COMMIT, 12),
]


def test_the_stages_of_a_restart_add_up_to_its_time() -> None:
    """The stages must cover the whole pause, or a part of it would have no explanation."""
    found = parts(WAY, 0, 0, 13)
    assert tuple(found) == STAGES
    assert [part.ours_s + part.kafka_s for part in found.values()] == pytest.approx([1] * len(STAGES))


def test_kafkas_part_is_what_its_calls_took_on_the_thread_that_had_the_task() -> None:
    """Ours must not look smaller than it is: only waiting for a broker is Kafka's."""
    found = parts(WAY, 0, 0, 13)
    kafka_s = {stage: part.kafka_s for stage, part in found.items() if part.kafka_s > 1e-9}
    assert kafka_s == pytest.approx(
        {
            "app, cluster, genesis": 0.25,
            "fence": 0.8,
            "journal's end": 0.8,
            "replay": 0.75,
            "acquire": 0.5,
            "first record": 0.7,
            "commit": 1,
            "seen by a reader": 1,
        }
    )


def test_waiting_while_another_tasks_store_is_opened_is_ours() -> None:
    """Opening RocksDB stops every thread of the interpreter, also those that look as if they waited for Kafka."""
    another = Event("stores.open", OTHER, 6.25, 6.5, 1)
    assert parts([*WAY, another], 0, 0, 13)["replay"].kafka_s == pytest.approx(0.5)

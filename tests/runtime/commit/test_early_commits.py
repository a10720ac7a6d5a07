"""A worker that keeps up, one that is behind, and what both do to polls."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event
from pipeline.config import WorkerSettings
from pipeline.ports import Polled
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.worker import IDLE_POLLS, LONGEST_IDLE_POLL_S, TASKS_PER_IDLE_POLL
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemorySource
from tests.support.runtime.sums import Sums


def test_a_task_that_keeps_up_commits_without_waiting() -> None:
    """The interval was most of the latency."""
    sums = Sums.begun()
    sums.send(2)
    sums.driver.step()
    sums.driver.clock.advance(0.001)
    sums.driver.step()
    sums.check()


def test_a_task_rests_after_the_end_of_its_commit() -> None:
    """Kafka completes a transaction after its commit, and the client would back off for longer than the rest."""
    sums = Sums.begun()
    sums.send(2)
    for _ in range(3):  # the third step sees the end of the commit
        sums.driver.step()
        sums.driver.clock.advance(0.001)
    sums.send(3)
    for _ in range(3):
        sums.driver.step()
        sums.driver.clock.advance(0.001)
    assert len(sums.driver.outputs(sums.sums)) == 2
    sums.driver.clock.advance(0.008)
    sums.driver.step()
    sums.check()


def test_a_task_that_is_behind_commits_at_the_interval() -> None:
    """A commit costs as much for two records as for thousands."""
    sums = Sums(settings=WorkerSettings(worker_id="test", max_poll_records=2))
    sums.send(1)
    sums.driver.run()
    before = len(sums.driver.outputs(sums.sums))
    sums.send(2, 3)
    sums.driver.step()
    sums.driver.clock.advance(0.001)
    sums.driver.step()
    assert len(sums.driver.outputs(sums.sums)) == before
    sums.driver.clock.advance(0.1)
    sums.driver.step()
    sums.check()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time-outs of all polls, also of those of notes, which do not wait."""
    found: list[float] = []
    real = MemorySource.poll

    def poll(source: MemorySource, max_records: int, timeout_s: float) -> Polled:
        found.append(timeout_s)
        return real(source, max_records, timeout_s)

    monkeypatch.setattr(MemorySource, "poll", poll)
    return found


def test_a_worker_with_two_groups_waits_long_for_none_of_them(waits: list[float]) -> None:
    """While it waits for the input of one group, a record of the other one waits, too."""
    app = App("two")
    numbers = app.topic("numbers", key=str, value=int)

    def ignore(event: Event[str, int], ctx: Context) -> None:
        """Nothing."""

    app.handler(numbers)(ignore)
    app.group("second").handler(numbers)(ignore)
    driver = TestDriver(app)
    driver.run()
    waits.clear()
    for _ in range(3):
        driver.step()
    assert driver.worker.idle
    assert max(waits) == 0.005 / 2


@pytest.mark.parametrize(
    ("tasks", "poll_ms", "wait_s"),
    [
        (6, 5, IDLE_POLLS * 0.005),
        (32, 5, 32 / TASKS_PER_IDLE_POLL * 0.005),
        (32, 10, LONGEST_IDLE_POLL_S),
        (32, 50, IDLE_POLLS * 0.05),
    ],
)
def test_an_idle_worker_with_many_tasks_takes_fewer_turns(
    waits: list[float], tasks: int, poll_ms: int, wait_s: float
) -> None:
    """A turn costs time for each task. But notes of other workers must not wait for long."""
    sums = Sums(partitions=tasks, settings=WorkerSettings(worker_id="test", poll_timeout_ms=poll_ms))
    sums.driver.run()
    waits.clear()
    for _ in range(3):
        sums.driver.step()
    assert waits[-1] == wait_s


def test_a_poll_is_short_only_while_a_commit_is_in_progress(waits: list[float]) -> None:
    """The end of a commit does not interrupt a poll, and an idle worker must not poll busily."""
    sums = Sums(deferred=True)
    sums.driver.run()
    waits.clear()
    for _ in range(3):
        sums.driver.step()
    assert waits[-1] == IDLE_POLLS * 0.005
    sums.send(1)
    for _ in range(4):
        sums.driver.clock.advance(0.001)
        sums.driver.step()  # the executor does nothing meanwhile
    assert waits[-1] == 0.001
    sums.driver.run()
    for _ in range(3):
        sums.driver.step()
    assert waits[-1] == IDLE_POLLS * 0.005
    sums.check()


def test_a_worker_of_a_large_fleet_commits_early_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early commits are shared by all workers, as far as this one knows them."""
    monkeypatch.setattr(Ownership, "members", property(lambda _: 1_000))
    sums = Sums(settings=WorkerSettings(worker_id="test", max_commits_per_s=10))
    sums.send(1)
    sums.driver.run()
    sums.send(2)
    sums.driver.clock.advance(0.001)
    sums.driver.step()
    sums.driver.clock.advance(0.001)
    sums.driver.step()  # uses the only token for an early commit
    for _ in range(3):
        sums.driver.clock.advance(0.05)
        sums.driver.step()  # idle
    before = len(sums.driver.outputs(sums.sums))
    sums.send(3)
    sums.driver.step()
    sums.driver.clock.advance(0.001)
    sums.driver.step()
    assert len(sums.driver.outputs(sums.sums)) == before == 2
    sums.driver.clock.advance(0.11)
    sums.driver.step()
    sums.check()

"""The clocks of a worker: input that stops, idle inputs, what must not be taken for idle, and where clocks are kept."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S, INPUT_CHECK_S
from pipeline.core.names import TopicPartition
from pipeline.errors import UnreachableError
from pipeline.ports import Output
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducer
from tests.support.runtime.window_app import START_MS, WindowApp

pytestmark = pytest.mark.unverified  # a closed window is made from several records

LATER_S = IDLE_S + 2 * INPUT_CHECK_S  # after it, an input at its end is idle


def send_both(app: WindowApp, driver: TestDriver, seconds: int) -> None:
    """A record of each input."""
    app.send(driver, "a", seconds)
    driver.send(app.other, "a", seconds, timestamp_ms=START_MS + seconds * 1000)


def clock_s(driver: TestDriver, partition: int = 0) -> float:
    clock_ms = driver.task("main", partition).clock_ms
    return -1 if clock_ms is None else (clock_ms - START_MS) / 1000


def test_windows_close_when_the_input_stops() -> None:
    """The clock then runs at the pace of the wall clock."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.advance(LATER_S)
    assert app.results(driver) == []
    driver.advance(70)
    assert app.results(driver) == [("a", 0, (5,))]


def test_an_input_that_is_idle_holds_nothing() -> None:
    """One topic without records must not stop all windows."""
    app = WindowApp(other=True)
    driver = app.driver()
    for second in range(0, int(LATER_S) + 60, 5):
        app.send(driver, "a", second)
        driver.advance(5)
    assert [start for _, start, _ in app.results(driver)] == [0]


def test_an_input_that_is_behind_holds_the_windows() -> None:
    """Its records are not late."""
    app = WindowApp(other=True)
    driver = app.driver()
    driver.send(app.other, "a", 1, timestamp_ms=START_MS + 1_000)
    app.send(driver, "a", 5)
    app.send(driver, "a", 500)
    driver.run()
    assert app.results(driver) == []
    driver.send(app.other, "a", 1, timestamp_ms=START_MS + 70_000)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))]


def test_an_open_transaction_of_a_producer_is_not_idle() -> None:
    """Its records are in the topic already, and arrive when it ends."""
    app = WindowApp(other=True)
    driver = app.driver()
    send_both(app, driver, 5)
    app.send(driver, "a", 500)
    producer = MemoryProducer(driver.broker, "upstream")
    producer.init()
    producer.begin()
    producer.send([Output("other", b"a", b"6", START_MS + 6_000)])
    producer.flush()
    driver.advance(2 * LATER_S)
    assert (clock_s(driver), app.results(driver)) == (5, [])
    producer.commit()
    driver.advance(2 * LATER_S)
    assert app.results(driver)[0] == ("a", 0, (5,))


def test_an_input_that_ends_in_a_marker_becomes_idle() -> None:
    """The position is that after the last record, and a marker follows it."""
    app = WindowApp(other=True)
    driver = app.driver()
    driver.run()
    producer = MemoryProducer(driver.broker, "upstream")
    producer.init()
    producer.begin()
    producer.send([Output("other", b"a", b"6", START_MS + 6_000)])
    producer.commit()
    app.send(driver, "a", 5)
    app.send(driver, "a", 500)
    driver.advance(LATER_S + INPUT_CHECK_S)
    assert app.results(driver)[0] == ("a", 0, (5,))


def test_an_outage_is_not_idle() -> None:
    """It is unknown what is in the topics meanwhile."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()

    def silent(_self: object, _partitions: object) -> object:
        raise UnreachableError("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryJournalReader, "ends", silent)
        driver.advance(20 * INPUT_CHECK_S)
    assert len(driver.log_events("input_ends_not_read")) > 10
    assert clock_s(driver) == 5
    driver.advance(LATER_S)
    assert clock_s(driver) < 5 + INPUT_CHECK_S + 1


def test_a_stale_leader_makes_no_input_idle() -> None:
    """It does not know the records that the new leader has."""
    app = WindowApp(other=True)
    driver = app.driver()
    send_both(app, driver, 5)
    app.send(driver, "a", 500)
    driver.run()
    looks: list[bool] = []
    before = MemoryJournalReader.highest_ends

    def newer(self: MemoryJournalReader, partitions: list[TopicPartition], *, committed: bool = True) -> Any:
        looks.append(committed)
        return {place: end + 1 for place, end in before(self, partitions, committed=committed).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryJournalReader, "highest_ends", newer)
        driver.advance(3 * LATER_S)
    assert looks
    assert clock_s(driver) == 5
    driver.advance(2 * LATER_S)
    assert clock_s(driver) > 5


def test_a_record_that_is_retried_is_not_idle() -> None:
    """The position of its input does not move."""
    app = WindowApp(other=True)
    broken = [True]

    def fail(_event: object, _ctx: object) -> None:
        if broken:
            raise ValueError("no")

    app.app.handler(app.other, retries=1_000, retry_delay_s=60)(fail)
    driver = app.driver()
    driver.run()
    app.send(driver, "a", 5)
    app.send(driver, "a", 500)
    driver.send(app.other, "a", 1, timestamp_ms=START_MS + 1_000)
    for _ in range(20):
        driver.step()
        driver.clock.advance(INPUT_CHECK_S)
    assert app.results(driver) == []
    broken.clear()
    driver.run()
    assert clock_s(driver) == 1


def test_a_pause_in_a_backfill_makes_nothing_late() -> None:
    """The clock is that of old events; it must not jump to the present."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.advance(20)
    app.send(driver, "a", 6)
    driver.advance(LATER_S + 20)
    app.send(driver, "a", 7)
    app.send(driver, "a", 300)
    driver.run()
    assert app.results(driver) == [("a", 0, (5, 6, 7))]
    assert app.late_values(driver) == []


@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_each_partition_has_a_clock_of_its_own(tasks: int) -> None:
    """Results do not depend on the number of tasks."""
    app = WindowApp()
    driver = app.driver(partitions=4, tasks=tasks)
    for partition in range(3):
        driver.send(app.events, f"k{partition}", 5, timestamp_ms=START_MS + 5_000, partition=partition)
    for partition in range(2):
        driver.send(app.events, f"k{partition}", 300, timestamp_ms=START_MS + 300_000, partition=partition)
    driver.run()
    assert sorted(app.results(driver)) == [("k0", 0, (5,)), ("k1", 0, (5,))]


@pytest.mark.parametrize("how", ["crash", "stop", "empty disk", "checkpoint"])
def test_the_clock_survives(how: str) -> None:
    """It is a row of the state: entries without a delta, such as acquires and checkpoints, do not reset it."""
    app = WindowApp()
    settings = WorkerSettings(worker_id="test", checkpoint_store="memory" if how == "checkpoint" else "")
    driver = app.driver(settings=settings)
    app.send(driver, "a", 5)
    app.send(driver, "a", 300)
    driver.run()
    if how == "checkpoint":
        driver.clock.advance(settings.checkpoint_interval_s)
        app.send(driver, "b", 301)
        driver.run()
        assert driver.log_events("checkpoint_made") or driver.checkpoints.objects("")
    if how == "stop":
        driver.stop()
    driver.restart(empty_disk=how in {"empty disk", "checkpoint"})
    app.send(driver, "a", 6)
    driver.run()
    assert app.late_values(driver) == [6]
    assert clock_s(driver) >= 300


def test_a_reset_clears_the_clock() -> None:
    """The same events are processed again, and none of them is late."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 300)
    driver.run()
    driver.reset()
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))] * 2
    assert app.late_values(driver) == []


def test_a_reset_of_a_partition_clears_its_clock_only() -> None:
    """The rows of a partition are one range of keys."""
    app = WindowApp()
    driver = app.driver(partitions=2, tasks=1)
    for partition in range(2):
        for second in (5, 300):
            at_ms = START_MS + second * 1000
            driver.send(app.events, f"k{partition}", second, timestamp_ms=at_ms, partition=partition)
    driver.run()
    driver.reset(partition=1)
    driver.run()
    assert sorted(app.results(driver)) == [("k0", 0, (5,)), ("k1", 0, (5,)), ("k1", 0, (5,))]
    assert app.late_values(driver) == []


def test_a_task_that_leaves_fires_nothing() -> None:
    """The next owner closes the windows: a task that is being released must end soon."""
    app = WindowApp()
    driver = app.driver()
    for number in range(6_000):
        app.send(driver, f"k{number}", number, at_s=1)
    driver.run()
    app.send(driver, "x", 300)
    driver.step()
    before = len(app.calls)
    assert 0 < before < 6_000
    driver.stop()
    assert len(app.calls) == before
    driver.restart()
    driver.run()
    assert len(app.results(driver)) == len(app.calls) == 6_000


def test_looks_do_not_commit() -> None:
    """An idle task without open windows writes nothing, however long."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.advance(LATER_S + 100)
    commits = driver.worker.progress().commits
    driver.advance(600)
    assert driver.worker.progress().commits == commits

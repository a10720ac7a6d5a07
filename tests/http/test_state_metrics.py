"""Each metric of the state of tasks and workers, compared with a count that was made without it."""

from __future__ import annotations

import pytest

from pipeline.core.checkpoint import Manifest
from pipeline.core.names import TaskId
from pipeline.core.recovery_time import FIRST_COMMIT_S
from pipeline.errors import (
    HandlerError,
    SinkUnreachableError,
    UnreachableError,
)
from pipeline.http.port import readiness
from pipeline.ports import Step
from pipeline.runtime.restore import restore
from tests.support.http.scrape import Scrape, Scraper, scraped
from tests.support.http.shop import advance_at
from tests.support.runtime.checkpointed import eager, entries, kept, manifest
from tests.support.runtime.fleet import Fleet, Node
from tests.support.runtime.several import BAD, PARTITIONS, Several
from tests.support.runtime.sums import Sums
from tests.support.sinks.totals import Totals


def test_rows_are_those_in_the_database() -> None:
    """A sink group has no outputs, and commits rows and positions together."""
    totals = Totals()
    scrape = Scraper(totals.driver)
    totals.send(1, 2, 3)
    totals.driver.run()
    totals.database.fail_next("commit", SinkUnreachableError("away"))
    totals.send(4)
    totals.driver.run()
    totals.check()
    found = scrape()
    rows = len(totals.driver.rows(totals.ledger))
    assert found.value("pipeline_records_total", outcome="handled", group="rows") == rows == 4
    assert found.value("pipeline_rows_total") == rows + len(totals.driver.rows(totals.last)) + 3
    assert found.value("pipeline_commits_total", result="committed") == 2
    assert found.value("pipeline_commits_total", result="aborted") == 1
    assert found.value("pipeline_handler_seconds_count", group="rows") == 2
    assert found.values("pipeline_journal_bytes") == []


def test_the_journal_and_its_checkpoints_have_the_sizes_of_their_records() -> None:
    """These sizes predict how long a restore takes."""
    sums = eager(checkpoint_interval_s=3600.0, checkpoint_journal_bytes=1 << 30)
    scrape = Scraper(sums.driver)
    for number in range(5):
        sums.send(number)
        sums.driver.run()
    found = scrape()
    raw = sum(len(record.value() or b"") for record in sums.driver.broker.records("sums.main.journal"))
    assert found.value("pipeline_journal_bytes") == raw
    assert found.values("pipeline_checkpoint_bytes") == []
    assert found.value("pipeline_restore_predicted_seconds") == pytest.approx(FIRST_COMMIT_S + raw / 40e6)
    sums.driver.clock.advance(2 * 3600)
    sums.driver.run()
    newest = kept(sums)[0]
    described: Manifest = manifest(sums, newest)
    sums.driver.clock.advance(33)
    found = scrape()
    assert found.value("pipeline_checkpoint_bytes") == sum(file.size for file in described.files)
    age_s = (sums.driver.clock.wall_ms() - newest.wall_ms) / 1000
    assert found.value("pipeline_checkpoint_age_seconds") == pytest.approx(age_s)
    assert age_s > 33
    assert found.value("pipeline_journal_bytes") < raw


def test_a_restore_shows_what_it_must_still_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator who waits for a restore wants to know how far it is."""
    monkeypatch.setattr(restore, "REPLAY_BATCH_BYTES", 1)  # a step after each entry
    sums = Sums()
    for number in range(20):
        sums.send(number)
        sums.driver.run()
    sizes = [entry.size for entry in entries(sums)]
    sums.driver.restart(empty_disk=True)
    scrape = Scraper(sums.driver)
    found: list[float | None] = []
    reached = sums.driver._steps.reached

    def look(step: Step, task: TaskId) -> None:
        if step is Step.DURING_REPLAY:
            found.append(scrape.meter.read().restores[sums.task].remaining_bytes())
        reached(step, task)

    sums.driver._steps.reached = look  # type: ignore[method-assign]
    advance_at(sums.driver, Step.AFTER_FENCE, 1.5)
    sums.driver.run()
    assert len(found) == len(sizes)
    halfway = len(sizes) // 2
    assert found[halfway] == pytest.approx(sum(sizes[halfway + 1 :]), rel=0.2)
    assert found[-1] == pytest.approx(0, abs=max(sizes))
    after = scrape()
    assert after.values("pipeline_restore_remaining_bytes") == []
    assert after.value("pipeline_restore_seconds_count", group="main") == 1
    assert after.value("pipeline_restore_seconds_sum") == pytest.approx(1.5)


def test_the_lag_is_the_number_of_records_without_a_commit() -> None:
    """Open records count: a crash would process them again."""
    sums = Sums(partitions=2)
    scrape = Scraper(sums.driver)
    sums.driver.run()
    for key in "abcdef":
        sums.send(1, 2, key=key)
    sums.driver.step()
    found = scrape()
    ends = [
        sum(record.partition() == number for record in sums.driver.broker.records("numbers"))
        for number in (0, 1)
    ]
    for number, end in enumerate(ends):
        labels = {"topic": "numbers", "partition": str(number), "task": str(number)}
        assert found.value("pipeline_input_lag_records", **labels) == end
    assert sum(ends) == 12
    sums.driver.run()
    assert scrape().sum("pipeline_input_lag_records", topic="numbers") == 0


def test_there_is_no_lag_without_an_answer_of_kafka() -> None:
    """The last known end would look like an input that stands still."""
    sums = Sums.begun()
    scrape = Scraper(sums.driver)
    assert scrape().values("pipeline_input_lag_records") != []
    sums.driver.broker.fail_next("bounds", UnreachableError("away"))
    found = scrape()
    assert found.values("pipeline_input_lag_records") == []
    assert found.value("pipeline_workers") == 1


def test_a_paused_input_is_shown() -> None:
    """A task that reads nothing on purpose must not look like one without input."""
    sums = Sums.begun()
    scrape = Scraper(sums.driver)
    run = sums.driver.worker.runs[0]
    assert scrape().value("pipeline_input_paused", task="0") == 0
    run.hold(0)
    sums.driver.step()
    assert scrape().value("pipeline_input_paused", task="0") == 1
    run.unhold(0)
    sums.driver.step()
    assert scrape().value("pipeline_input_paused", task="0") == 0


def test_stopped_partitions_are_those_whose_input_waits() -> None:
    """Their task stays live, so that no other metric tells an operator that records wait for a repair."""
    several = Several(on_error="stop")
    scrape = Scraper(several.driver)
    several.send("a")
    several.driver.run()
    assert stopped(scrape()) == {"0": 0, "1": 0}
    several.send("b", BAD, [2, 3, 4])
    several.send("c")
    several.driver.run()
    behind = [
        p for p in range(PARTITIONS) if several.driver.positions(partition=p)["numbers"] < ends(several, p)
    ]
    assert behind == [2, 3, 4]
    found = scrape()
    assert stopped(found) == {str(task): sum(p % 2 == task for p in behind) for task in (0, 1)}
    assert phases(found, "live") == 2
    several.fixed = True
    several.driver.restart()
    several.driver.run()
    assert stopped(scrape()) == {"0": 0, "1": 0}


def stopped(found: Scrape) -> dict[str, float]:
    name = "pipeline_stopped_partitions"
    return {labels["task"]: found.value(name, task=labels["task"]) for labels in found.labels(name)}


def ends(several: Several, partition: int) -> int:
    return sum(each.partition() == partition for each in several.driver.broker.records("numbers"))


def test_an_outage_of_kafka_has_a_duration() -> None:
    """It is the first thing to look at when nothing is committed."""
    sums = Sums.begun()
    scrape = Scraper(sums.driver)
    assert scrape().value("pipeline_kafka_unreachable_seconds") == 0
    sums.driver.broker.fail_next("describe", UnreachableError("away"), where="numbers")
    sums.driver.clock.advance(10)
    sums.driver.step()
    sums.driver.step()
    sums.driver.clock.advance(4)
    assert scrape().value("pipeline_kafka_unreachable_seconds") == pytest.approx(4, abs=0.5)
    sums.driver.clock.advance(10)
    sums.driver.run()
    assert scrape().value("pipeline_kafka_unreachable_seconds") == 0


def test_a_task_is_in_one_phase() -> None:
    """The sum over the phases is the number of tasks, so a dashboard can count them."""
    sums = Sums(partitions=2)
    scrape = Scraper(sums.driver)
    sums.driver.run()
    assert phases(scrape(), "live") == 2
    sums.driver.send_raw(sums.numbers, b"a", b"{broken", partition=1)
    with pytest.raises(HandlerError):
        sums.driver.run()
    found = scrape()
    assert (phases(found, "live"), phases(found, "failed")) == (1, 1)
    assert found.value("pipeline_task_phase", task="1", phase="failed") == 1
    assert found.sum("pipeline_task_phase") == 2
    answer = readiness(sums.driver.worker.figures(), stopping=False)
    assert answer.status == 503
    assert b"1 of 2 assigned tasks is not live" in answer.body


def phases(found: Scrape, phase: str) -> float:
    return found.sum("pipeline_task_phase", phase=phase)


def test_moves_are_counted_where_the_tasks_arrive() -> None:
    """A planned move costs milliseconds; an unplanned one is a dead worker."""
    fleet = Fleet(partitions=6)
    first = fleet.start("a")
    fleet.settle()
    second = fleet.start("b")
    fleet.settle()
    came = len(second.live)
    assert moves(fleet, second) == (came, 0)
    assert moves(fleet, first) == (0, 0)
    assert of(fleet, first).value("pipeline_workers") == 2
    assert 0 < came < 6
    fleet.kill(first)
    fleet.run(30.0)
    fleet.settle()
    fleet.check()
    found = of(fleet, second)
    assert moves(fleet, second) == (came, 6 - came)
    assert found.value("pipeline_workers") == 1
    assert phases(found, "live") == 6
    assert found.value("pipeline_restore_seconds_count") == 6


def of(fleet: Fleet, node: Node) -> Scrape:
    return scraped(node.worker, node.meter, fleet.broker, fleet.clock)


def moves(fleet: Fleet, node: Node) -> tuple[float, float]:
    found = of(fleet, node)
    return (
        found.value("pipeline_tasks_moved_total", planned="true"),
        found.value("pipeline_tasks_moved_total", planned="false"),
    )


def test_the_memory_of_a_state_is_read_from_its_store() -> None:
    """The figures of RocksDB itself are compared in tests/rocksdb/test_usage.py."""
    sums = Sums.begun()
    scrape = Scraper(sums.driver)
    stored = sums.driver.stores.contents(sums.task)
    size = sum(len(key) + len(value) for key, value in stored.items())
    found = scrape()
    assert found.value("pipeline_rocksdb_memtable_bytes", task="0") == size > 0
    assert found.values("pipeline_rocksdb_write_stalls_total", kind="stop") == [0]


def test_the_tasks_of_a_group_are_its_input_partitions() -> None:
    """A task that no worker has is missing in every phase, so an alert needs to know how many there are."""
    fleet = Fleet(partitions=6)
    first, second = fleet.start("a"), fleet.start("b")
    fleet.settle()
    assert 0 < phases(of(fleet, first), "live") < 6
    for node in (first, second):
        assert of(fleet, node).value("pipeline_tasks", app="sums", group="main") == 6

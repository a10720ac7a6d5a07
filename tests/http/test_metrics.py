"""Each metric of records, commits and handlers, compared with a count that was made without it."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event
from pipeline.config import WorkerSettings
from pipeline.core.names import GroupId, TaskId
from pipeline.errors import (
    AbortableError,
    ConfigError,
    RefusedError,
)
from pipeline.http.families import FAMILIES, Kind
from pipeline.ports import Step
from pipeline.testing import TestDriver
from tests.support.http.scrape import Scraper
from tests.support.http.shop import LETTER, RETRIED, SKIPPED, TTL_S, Shop, advance_at
from tests.support.runtime.checkpointed import eager, entries
from tests.support.runtime.fleet import Fleet
from tests.support.runtime.several import BAD, Several
from tests.support.runtime.sums import Sums


def test_records_are_counted_by_their_outcome() -> None:
    """Each input record has one outcome, so the outcomes add up to the input."""
    shop = Shop()
    for value in (1, 2, LETTER, RETRIED, 3):
        shop.order(value)
    shop.order(1, event_id=b"1")  # a duplicate
    for value in (4, SKIPPED, SKIPPED):
        shop.driver.send(shop.gifts, "a", value)
    shop.driver.run()
    found = shop.scrape()
    outcomes = {
        outcome: found.value("pipeline_records_total", outcome=outcome, task="0", group="main", app="shop")
        for outcome in ("handled", "skipped", "dead_letter", "duplicate", "late")
    }
    handled = len(shop.driver.outputs(shop.outs))
    letters = len(shop.driver.dead_letters())
    assert outcomes == {
        "handled": handled, "skipped": 2, "dead_letter": letters, "duplicate": 1, "late": 0
    }  # fmt: skip
    assert (handled, letters) == (5, 1)
    assert sum(outcomes.values()) == len(shop.driver.broker.records("orders")) + 3
    assert found.value("pipeline_outputs_total") == handled + letters
    # Every call is the first attempt of a record or a retry.
    assert found.value("pipeline_retries_total") == len(shop.calls) - 8


def test_open_dead_letters_are_those_without_a_replay() -> None:
    """An alert on them must end when the last one is replayed or discarded."""
    shop = Shop()
    shop.driver.run()
    assert shop.scrape().value("pipeline_open_dead_letters", group="main") == 0
    for value in (LETTER, 1, LETTER, LETTER):
        shop.order(value)
    shop.driver.run()
    assert len(shop.driver.dead_letters()) == 3
    assert shop.scrape().value("pipeline_open_dead_letters", app="shop", group="main") == 3
    shop.failing = set()
    shop.driver.replay_dead_letters()
    assert shop.scrape().value("pipeline_open_dead_letters") == 0
    shop.driver.run()
    assert shop.scrape().value("pipeline_open_dead_letters") == 0


def test_without_a_permission_there_is_no_count_of_open_dead_letters() -> None:
    """Workers of an earlier release were not granted it, and their other metrics must not be missing."""
    shop = Shop()
    shop.driver.run()
    shop.driver.broker.fail_next("describe", ConfigError("Kafka denies it"))
    found = shop.scrape()
    assert found.values("pipeline_open_dead_letters") == []
    assert found.value("pipeline_tasks") == 1
    assert shop.scrape().value("pipeline_open_dead_letters") == 0


def test_only_the_worker_of_the_first_task_counts_dead_letters() -> None:
    """All workers would read all journals, and a sum over them would count each record several times."""
    fleet = Fleet(partitions=6)
    nodes = [fleet.start("a"), fleet.start("b")]
    fleet.settle()
    for node in nodes:
        expected = [GroupId("sums", "main")] if TaskId("sums", "main", 0) in node.live else []
        assert node.worker.figures().first_tasks == expected
    assert sum(len(node.worker.figures().first_tasks) for node in nodes) == 1


def test_a_late_duplicate_has_an_outcome_of_its_own() -> None:
    """An id that comes back after its time-to-live is processed again, which an operator may want to know."""
    shop = Shop()
    shop.order(1, event_id=b"x")
    shop.driver.run()
    shop.driver.clock.advance(TTL_S + 1)
    shop.order(1, event_id=b"x")
    shop.driver.run()
    found = shop.scrape()
    assert found.value("pipeline_records_total", outcome="late") == 1
    assert found.value("pipeline_records_total", outcome="handled") == 1
    assert len(shop.driver.outputs(shop.outs)) == 2


def test_counts_survive_a_task_that_is_restored() -> None:
    """A counter that goes back is a reset to Prometheus, and the counts since the last scrape would be lost."""
    sums = Sums()
    scrape = Scraper(sums.driver)
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.broker.fence(sums.task.transactional_id)
    sums.send(3)
    sums.driver.run()
    sums.check()
    found = scrape()
    # The third record was processed twice: its first commit was fenced.
    assert found.value("pipeline_records_total", outcome="handled") == 4
    assert found.value("pipeline_fences_total") == 1
    assert found.value("pipeline_commits_total", result="fenced") == 1


def test_commits_are_the_entries_of_the_journal() -> None:
    """The journal is the record of what was committed; genesis is not the work of a task."""
    sums = eager()
    scrape = Scraper(sums.driver)
    for number in range(4):
        sums.send(number)
        sums.driver.run()
    found = scrape()
    # Entries are numbered from 1, which is genesis. Truncation removes entries, but not their numbers.
    committed = entries(sums)[-1].entry.seq - 1
    assert committed > 8
    assert found.value("pipeline_commits_total", result="committed") == committed
    assert found.value("pipeline_commit_seconds_count", group="main") == committed
    assert found.sum("pipeline_commits_total") == committed


def test_an_aborted_commit_and_its_renewal_are_counted() -> None:
    """Many of them mean that Kafka refuses something, or that commits are slower than the client's back-off."""
    sums = Sums.begun()
    sums.driver.restart()
    scrape = Scraper(sums.driver)
    sums.driver.run()
    before = scrape()
    sums.driver.broker.fail_next("commit", AbortableError("refused"))
    sums.send(2)
    sums.driver.run()
    found = scrape()
    assert found.value("pipeline_commits_total", result="aborted") == 1
    assert found.value("pipeline_producer_renewals_total") == 1
    assert before.value("pipeline_producer_renewals_total") == 0
    assert (
        found.value("pipeline_commits_total", result="committed")
        == before.value("pipeline_commits_total", result="committed") + 1
    )


def test_a_refused_commit_is_counted_once() -> None:
    """Its records are processed again, and its cause is found in smaller commits."""
    sums = Sums.begun()
    sums.driver.restart()
    scrape = Scraper(sums.driver)
    sums.driver.run()
    sums.driver.broker.fail_next("flush", RefusedError("too large", topic="sums"))
    sums.send(2, 3)
    sums.driver.run()
    sums.check()
    assert scrape().value("pipeline_commits_total", result="refused") == 1


def test_the_seconds_of_commits_are_those_that_passed() -> None:
    """A commit takes from the seal until its rows are in the store, which is what a reader of outputs waits for."""
    sums = Sums()
    scrape = Scraper(sums.driver)
    advance_at(sums.driver, Step.DURING_COMMIT, 0.25)
    advance_at(sums.driver, Step.BEFORE_APPLY, 0.5)
    sums.send(1)
    sums.driver.run()
    found = scrape()
    commits = found.value("pipeline_commit_seconds_count")
    assert found.value("pipeline_commit_seconds_sum") == pytest.approx(0.75 * commits)
    assert found.value("pipeline_commit_seconds_bucket", le="0.5") == 0
    assert found.value("pipeline_commit_seconds_bucket", le="1.0") == commits


def test_handlers_are_timed_by_the_batch() -> None:
    """A clock call for each record would cost more than many handlers."""
    app = App("slow")
    numbers = app.topic("numbers", key=str, value=int)

    @app.handler(numbers)
    def slow(_event: Event[str, int], _ctx: Context) -> None:
        driver.clock.advance(0.1)

    driver = TestDriver(app)
    scrape = Scraper(driver)
    driver.run()
    for number in range(5):
        driver.send(numbers, "a", number)
    driver.step()
    found = scrape()
    assert found.value("pipeline_handler_seconds_count", group="main", app="slow") == 1
    assert found.value("pipeline_handler_seconds_sum") == pytest.approx(0.5)
    assert found.values("pipeline_handler_seconds_count", task="0") == []


def test_a_handler_that_is_running_counts_as_busy() -> None:
    """The ratio must be 1 while a handler hangs, and not only afterwards."""
    sums = Sums()
    scrape = Scraper(sums.driver)
    clock = sums.driver.clock
    sums.driver.run()
    scrape()
    with scrape.meter.handling(sums.task):
        clock.advance(3)
    clock.advance(7)
    assert scrape().value("pipeline_handler_busy_ratio", group="main") == pytest.approx(0.3)
    with scrape.meter.handling(sums.task):
        clock.advance(2)
        scrape()
        clock.advance(18)
        assert scrape().value("pipeline_handler_busy_ratio", group="main") == 1


def test_the_seconds_in_which_records_wait_for_a_commit_are_counted() -> None:
    """It shows that Kafka, and not the handlers, limits the throughput."""
    settings = WorkerSettings(worker_id="test", max_records_per_commit=1)
    sums = Sums(deferred=True, settings=settings)
    scrape = Scraper(sums.driver)
    sums.driver.run()
    sums.send(1)
    sums.driver.step()
    sums.send(2)
    sums.driver.step()
    sums.send(3)
    sums.driver.step()  # one commit in progress, one record open, one waits
    assert scrape().value("pipeline_commit_wait_seconds_total") == 0
    sums.driver.clock.advance(1.5)
    sums.driver.step()
    assert scrape().value("pipeline_commit_wait_seconds_total") == pytest.approx(1.5)
    sums.driver.run()
    after = scrape().value("pipeline_commit_wait_seconds_total")
    sums.driver.clock.advance(60)
    sums.driver.run()
    assert scrape().value("pipeline_commit_wait_seconds_total") == after < 3


def test_a_wait_ends_with_its_task() -> None:
    """A task that comes back later must not have waited meanwhile."""
    settings = WorkerSettings(worker_id="test", max_records_per_commit=1)
    sums = Sums(deferred=True, settings=settings)
    scrape = Scraper(sums.driver)
    sums.driver.run()
    for number in (1, 2, 3):
        sums.send(number)
        sums.driver.step()
    task = sums.driver.task()
    sums.driver.clock.advance(2)
    task.close()
    sums.driver.clock.advance(60)
    scrape.meter.waits(sums.task, waiting=True)
    scrape.meter.waits(sums.task, waiting=False)
    assert scrape.meter.read().commit_wait_s[sums.task] == pytest.approx(2)


def test_every_family_is_declared_as_it_is_named() -> None:
    """Prometheus' conventions: one prefix, base units, `_total` for counters; and never a label for keys."""
    allowed = {
        "app",
        "group",
        "task",
        "topic",
        "partition",
        "outcome",
        "phase",
        "planned",
        "result",
        "kind",
        "reached",
    }
    for family in FAMILIES:
        assert family.name.startswith("pipeline_")
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert set(family.labels) <= allowed
        assert not family.help.endswith(".")
        assert family.kind is not Kind.HISTOGRAM or family.labels == ("app", "group")
        assert "partition" not in family.labels or family.name == "pipeline_input_lag_records"


def test_every_family_has_a_sample_in_some_worker() -> None:
    """A family that is declared and never written would be documented and empty."""
    sums = eager()
    scrape = Scraper(sums.driver)
    sums.send(1)
    sums.driver.run()
    found = scrape()
    bases = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for name, _, _ in found.samples
    }
    missing = {family.name for family in FAMILIES} - bases
    # Only while a restore runs; only for a group with dead letters; only for a group with a clock.
    of_clocks = {
        "pipeline_clock_behind_seconds",
        "pipeline_late_events_total",
        "pipeline_history_values_removed_total",
        "pipeline_join_events_removed_total",
    }
    assert missing == {"pipeline_restore_remaining_bytes", "pipeline_open_dead_letters", *of_clocks}
    named = {sample[0]: sample[1] for sample in found.samples}
    for family in FAMILIES:
        if family.name in named:
            assert set(named[family.name]) == set(family.labels)


def test_without_a_meter_nothing_is_counted() -> None:
    """A worker without an HTTP port pays nothing for metrics."""
    sums = Sums.begun()
    assert sums.driver.worker.environment.meter is None
    quiet = Scraper(sums.driver)  # too late for the running worker
    sums.send(2)
    sums.driver.run()
    read = quiet.meter.read()
    assert (read.handler_s, read.commits, read.busy_s, read.restores) == ({}, {}, {}, {})


def test_only_the_lag_of_a_task_is_by_partition() -> None:
    """Counts of 1,000 partitions would be a hundred thousand series, and a sum over tasks must stay correct."""
    several = Several()
    scraper = Scraper(several.driver)
    several.send("a")
    several.send("b", BAD, [2, 3])
    several.driver.run()
    found = scraper()
    assert {series["task"] for series in found.labels("pipeline_records_total")} == {"0", "1"}
    assert found.sum("pipeline_records_total", outcome="handled") == 6
    assert [found.value("pipeline_records_total", outcome="dead_letter", task=t) for t in "01"] == [1, 1]
    lags = found.labels("pipeline_input_lag_records")
    assert {(each["task"], each["partition"]) for each in lags if each["topic"] == "numbers"} == {
        (str(partition % 2), str(partition)) for partition in range(6)
    }
    by_partition = {family.name for family in FAMILIES if "partition" in family.labels}
    assert by_partition == {"pipeline_input_lag_records"}

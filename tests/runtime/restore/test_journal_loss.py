"""Journals and inputs that have lost something, are gone or have been made anew."""

from __future__ import annotations

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, FatalTaskError, PipelineError
from pipeline.ports import Output
from pipeline.runtime.commit import journal_writer
from tests.support.runtime.sums import Sums


@pytest.mark.unverified
def test_a_journal_that_lost_its_tail_stops_the_task() -> None:
    """Going on would write history anew: outputs that readers have seen would be produced again."""
    sums = Sums()
    for number in range(4):
        sums.send(number)
        sums.driver.run()
    sums.driver.crash()
    journal = TopicPartition("sums.main.journal", 0)
    _start, _stable, end = sums.driver.broker.bounds(journal)
    sums.driver.broker.lose_tail(journal, end - 4)
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        sums.driver.run()


@pytest.mark.unverified
def test_a_lost_last_entry_is_refused_at_every_start() -> None:
    """The loss is proven by an aborted record, which makes the journal as long as it was."""
    sums = Sums.begun()
    sums.driver.crash()
    journal = sums.task.journal
    sums.driver.broker.lose_tail(journal, sums.driver.broker.records(journal.topic)[-1].offset())
    for _ in range(3):
        sums.driver.restart()
        with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
            sums.driver.run()
    assert sums.driver.log_events("local_state_set_aside") == []


@pytest.mark.unverified
def test_a_journal_that_lost_a_part_of_its_last_entry_stops_the_task_for_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large entry is several records. Called truncated, it would send its operator to start over."""
    monkeypatch.setattr(journal_writer, "CHUNK_BYTES", 40)
    sums = Sums()
    sums.send(1, 2, 3)
    sums.driver.run()
    sums.driver.crash()
    journal = sums.task.journal
    sums.driver.broker.lose_tail(journal, sums.driver.broker.records(journal.topic)[-1].offset())
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        sums.driver.run()


def test_a_journal_that_loses_its_tail_under_a_running_worker_stops_the_task() -> None:
    """The next entry's offset is too low; the check needs no read."""
    sums = Sums()
    for number in range(4):
        sums.send(number)
        sums.driver.run()
    journal = TopicPartition("sums.main.journal", 0)
    _start, _stable, end = sums.driver.broker.bounds(journal)
    sums.driver.broker.lose_tail(journal, end - 1)
    sums.send(5)
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        sums.driver.run()
    # What was sent meanwhile is aborted: readers of the outputs go on.
    _start, stable_end, end = sums.driver.broker.bounds(TopicPartition("sums", 0))
    assert stable_end == end


@pytest.mark.unverified
def test_a_foreign_record_in_the_journal_stops_the_restore() -> None:
    """The journal is the authority, so what it cannot have written itself is never read over."""
    sums = Sums.begun()
    sums.driver.broker.produce(Output("sums.main.journal", None, b"hello", 0), partition=0)
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="not a journal chunk"):
        sums.driver.run()


@pytest.mark.unverified
def test_a_journal_topic_that_is_gone_is_never_taken_for_a_new_app() -> None:
    """A lost journal must not look like a first start."""
    sums = Sums.begun()
    sums.driver.broker.delete("sums.main.journal")
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="existed before"):
        sums.driver.run()


def test_an_input_topic_created_again_is_refused_at_start_and_stops_a_running_worker() -> None:
    """Positions in the old topic mean nothing in the new one."""
    sums = Sums.begun()
    sums.driver.recreate(sums.numbers)
    sums.driver.clock.advance(sums.driver.settings.check_interval_s)
    with pytest.raises(FatalTaskError, match="deleted and created again"):
        sums.driver.run()
    sums.driver.restart()
    with pytest.raises(ConfigError, match="deleted and created again"):
        sums.driver.run()


def test_input_that_was_deleted_before_it_was_processed_stops_the_task() -> None:
    """A silent skip would be an unreported loss."""
    sums = Sums.begun()
    sums.driver.crash()
    for number in range(5):
        sums.driver.send(sums.numbers, "a", number)
    sums.driver.broker.truncate(TopicPartition("numbers", 0), 3)
    sums.driver.restart()
    with pytest.raises(PipelineError, match="outside what it holds"):
        sums.driver.run()

"""Tasks with nothing to do, whose input ends in what is no record: markers, and transactions that were aborted."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import Topic
from pipeline.config import WorkerSettings
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TopicPartition
from pipeline.errors import PipelineError
from pipeline.ports import Output
from pipeline.runtime.idle_positions import QUIET_S
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducer
from tests.support.runtime.checkpointed import entries
from tests.support.runtime.sums import Sums
from tests.support.sinks.totals import Totals


def send_in_transactions(app: Sums | Totals, *numbers: int, commit: bool = True) -> None:
    """As an app before this one does: each transaction ends in a marker."""
    topic = app.numbers if isinstance(app, Sums) else app.amounts
    producer = MemoryProducer(app.driver.broker, "upstream")
    producer.init()
    for number in numbers:
        producer.begin()
        producer.send([Output(topic.name, b"a", b"%d" % number, 1_000)])
        producer.flush()
        if commit:
            producer.commit()
            app.sent.append(("a", number))
        else:
            producer.abort()


def be_quiet(driver: TestDriver, seconds: float = QUIET_S + 10.0) -> None:
    """Run the worker for a while without new records."""
    for _ in range(int(seconds)):
        driver.clock.advance(1.0)
        driver.run()


def expire(driver: TestDriver, topic: Topic[Any, Any]) -> None:
    """Retention removes all that the input holds."""
    place = TopicPartition(topic.name, 0)
    driver.broker.truncate(place, MemoryJournalReader(driver.broker).bounds(place).stable_end)


def commits(sums: Sums) -> int:
    return sum(entry.entry.kind is EntryKind.COMMIT for entry in entries(sums))


@pytest.mark.parametrize("aborted", [False, True])
@pytest.mark.parametrize("crash", [False, True])
def test_an_input_that_expires_after_it_was_processed_is_no_loss(aborted: bool, crash: bool) -> None:
    """A week without input, and a restart: a marker that is gone with its records must not look like a record."""
    sums = Sums()
    send_in_transactions(sums, 1, 2)
    if aborted:
        send_in_transactions(sums, 7, 8, commit=False)
    sums.driver.run()
    be_quiet(sums.driver)
    if crash:
        sums.driver.crash()
    else:
        sums.driver.stop()
    expire(sums.driver, sums.numbers)
    sums.driver.restart()
    send_in_transactions(sums, 3)
    sums.driver.run()
    sums.check()


def test_input_that_expires_before_it_was_processed_is_one() -> None:
    """Only offsets that were checked are skipped: later records are read."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    be_quiet(sums.driver)
    sums.driver.stop()
    send_in_transactions(sums, 2)
    expire(sums.driver, sums.numbers)
    with pytest.raises(PipelineError, match="outside what it holds"):
        sums.driver.run()


def test_what_is_aborted_later_is_skipped_later() -> None:
    """A producer that fails for hours leaves nothing but markers, behind what was looked at before."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    be_quiet(sums.driver, 4 * QUIET_S)
    send_in_transactions(sums, 7, 8, commit=False)
    be_quiet(sums.driver, 2 * QUIET_S)
    sums.driver.stop()
    expire(sums.driver, sums.numbers)
    sums.driver.run()
    sums.check()


def test_input_that_waits_for_its_task_is_not_skipped() -> None:
    """A task whose intake is paused is idle, too."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    (run,) = sums.driver.worker.runs
    run.hold(0)
    run.balance()
    send_in_transactions(sums, 2, 3)
    be_quiet(sums.driver, 2 * QUIET_S)
    assert commits(sums) == 1
    run.unhold(0)
    sums.driver.run()
    sums.check()


def test_a_record_that_comes_before_the_entry_is_written_does_not_turn_positions_back() -> None:
    """A commit that is full goes first; a journal in which positions fall is one that cannot be restored from."""
    sums = Sums(settings=WorkerSettings(worker_id="test", max_records_per_commit=1))
    send_in_transactions(sums, 1)
    sums.driver.run()
    (run,) = sums.driver.worker.runs
    run.tasks[0].skip_to({"numbers": 2})
    send_in_transactions(sums, 2, 3)
    sums.driver.run()
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    sums.check()


def test_a_task_that_went_on_while_it_was_looked_is_left_alone() -> None:
    """What was found is of where it stood before: behind it by now."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    quiet = sums.driver.worker._maintenance._idle_positions
    while quiet._pending_check is None:
        sums.driver.clock.advance(1.0)
        sums.driver.step()
    send_in_transactions(sums, 2)
    sums.driver.run()
    assert quiet._pending_check is not None
    be_quiet(sums.driver, 10.0)
    assert commits(sums) == 2
    sums.check()


def test_a_quiet_task_says_so_once() -> None:
    """Ten thousand quiet tasks must not write an entry a minute each."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    assert commits(sums) == 1
    be_quiet(sums.driver, 2 * QUIET_S)
    assert commits(sums) == 2
    be_quiet(sums.driver, 5 * QUIET_S)
    assert commits(sums) == 2
    sums.check()


def test_a_quiet_task_whose_input_ends_in_a_record_writes_nothing() -> None:
    """No marker follows a record that was sent without a transaction."""
    sums = Sums.begun()
    be_quiet(sums.driver, 2 * QUIET_S)
    assert commits(sums) == 1


def test_a_task_that_pauses_for_less_than_a_minute_writes_nothing_for_it() -> None:
    """A record every few seconds would cost two transactions each."""
    sums = Sums()
    for number in range(5):
        send_in_transactions(sums, number)
        sums.driver.run()
        be_quiet(sums.driver, QUIET_S / 2)
    assert commits(sums) == 5
    sums.check()


def test_a_transaction_that_is_open_is_not_skipped() -> None:
    """Its records are in the topic, but it is unknown whether they will be committed."""
    sums = Sums()
    send_in_transactions(sums, 1)
    sums.driver.run()
    late = MemoryProducer(sums.driver.broker, "late")
    late.init()
    late.begin()
    late.send([Output("numbers", b"a", b"5", 1_000)])
    late.flush()
    be_quiet(sums.driver)
    late.commit()
    sums.sent.append(("a", 5))
    be_quiet(sums.driver)
    sums.check()


@pytest.mark.parametrize("seed", range(3))
def test_records_that_come_while_it_is_looked_are_processed(seed: int) -> None:
    """The look runs beside the processing: by its end the task may have gone on."""
    sums = Sums(deferred=True, seed=seed)
    for number in range(8):
        send_in_transactions(sums, number)
        for second in range(int(QUIET_S) + 6):
            sums.driver.clock.advance(1.0)
            sums.driver.step()
            if second % (1 + number % 3) == 0:
                sums.driver.run_deferred()
    sums.driver.run()
    sums.driver.restart(empty_disk=True)  # and the journal is one that can be read
    sums.driver.run()
    sums.check()


def test_a_quiet_sink_moves_its_positions_too() -> None:
    """Its positions are in the database; a restart reads from there."""
    totals = Totals()
    send_in_transactions(totals, 1, 2)
    totals.driver.run()
    be_quiet(totals.driver)
    totals.driver.stop()
    expire(totals.driver, totals.amounts)
    totals.driver.restart()
    send_in_transactions(totals, 3)
    totals.driver.run()
    totals.check()

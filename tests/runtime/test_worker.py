"""The worker on in-memory ports: crashes at every step, outcomes that are not known, fences, lost history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import (
    AbortableError,
    ConfigError,
    CorruptStateError,
    DamagedStateError,
    FatalTaskError,
    FencedError,
    PipelineError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime import publisher
from pipeline.testing import MemoryStores
from tests.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS, SINK_STEPS
from tests.runtime.sums import Sum, Sums

START_STEPS = {
    Step.BEFORE_GENESIS,
    Step.DURING_GENESIS,
    Step.AFTER_GENESIS,
    Step.AFTER_FENCE,
    Step.AFTER_END,
    Step.AFTER_CHOICE,
    Step.AFTER_REPLAY,
    Step.BEFORE_ACQUIRE,
    Step.AFTER_ACQUIRE,
}
# Reached by replays of many megabytes (test_restore.py), and with a checkpoint store (test_checkpoint_crashes.py).
ELSEWHERE = {Step.DURING_REPLAY, *CHECKPOINT_STEPS, *DOWNLOAD_STEPS, *SINK_STEPS}


@pytest.mark.parametrize("step", [s for s in Step if s not in START_STEPS | ELSEWHERE])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_commit_step_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Whatever combination of transaction, entry and state a crash leaves, the restart mends it, every time."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    for round_ in range(3):
        sums.driver.crash_at(step)
        sums.send(round_, 10, key="b")
        sums.send(round_)
        sums.driver.run()
        assert sums.driver.crashed
        sums.driver.restart(empty_disk=empty_disk)
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("step", [s for s in Step if s in START_STEPS])
def test_a_crash_at_each_step_of_the_start_leaves_results_exact(step: Step) -> None:
    """Genesis and restore are steps like any other: a crash in them is followed by another start."""
    sums = Sums(partitions=3)
    sums.send(1, 2, 3)
    for _ in range(1 if step in {Step.BEFORE_GENESIS, Step.AFTER_GENESIS} else 3):
        sums.driver.crash_at(step)
        sums.driver.run()
        assert sums.driver.crashed
        sums.driver.restart()
        sums.send(4)
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("call", ["send", "append", "flush"])
def test_an_aborted_commit_is_published_again(call: str) -> None:
    """A sealed commit does not change, so after the abort and a look at the journal it simply goes again."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.fail_next(call, AbortableError("ordered"), where="sums.main.0")
    sums.send(2, 3)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.check()


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_with_unknown_outcome_is_resolved_by_the_journal(happened: bool) -> None:
    """Neither doing it again nor leaving it is safe without asking."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_commit_that_aborts_for_ever_stops_the_task_and_loses_nothing() -> None:
    """Trying for ever would look like work; the operator is told, and the next start goes on."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    for _ in range(5):
        sums.driver.broker.fail_next("flush", AbortableError("the topic refuses it"))
    sums.send(2)
    with pytest.raises(FatalTaskError, match="aborted 5 times in a row: the topic refuses it"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_kafka_away_while_committing_is_waited_for() -> None:
    """An outage is no reason to stop: the commit goes out when the broker is back."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.fail_next("flush", AbortableError("timed out"))
    for _ in range(7):
        sums.driver.broker.fail_next("init", UnreachableError("away"))
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.check()


@pytest.mark.parametrize("call", ["init", "bounds", "read"])
@pytest.mark.parametrize("error", [UnreachableError("away"), UnknownOutcomeError("lost")])
@pytest.mark.parametrize("happened", [True, False])
def test_an_outage_while_a_doubtful_commit_is_resolved_loses_and_doubles_nothing(
    call: str, error: PipelineError, happened: bool
) -> None:
    """Outages come in the middle of recoveries, too: the task is restored, and the journal decides again."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    sums.driver.broker.fail_next(call, error)
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_fence_that_was_only_a_time_out_is_recovered_from() -> None:
    """The client says fenced also when the broker timed a transaction out; nobody else has the task."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.expire("sums.main.0")
    sums.send(2)
    sums.driver.run()
    sums.check()


def test_a_fence_between_a_doubtful_commit_and_the_look_at_the_journal_restores_the_task() -> None:
    """Our renewed init steals the task back from an owner in between: its entries must not be overwritten."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    other = Sums()
    other.driver.broker = sums.driver.broker
    other.driver.stores = MemoryStores()
    sums.send(2)
    # The first commit attempt of `sums` meets an unknown outcome just after `other` took the task and went on.
    other.driver.run()
    sums.driver.broker.fail_next("begin", UnknownOutcomeError("ordered"), where="sums.main.0")
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_corrupt_local_state_is_set_aside_and_rebuilt_from_the_journal() -> None:
    """The state is a cache of the journal: damage costs time, not data."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.crash()
    sums.driver.stores.corrupt(sums.task)
    sums.driver.restart()
    sums.send(3)
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("deferred", [False, True])
def test_damage_that_is_met_while_running_is_set_aside_and_the_task_restored(deferred: bool) -> None:
    """A flipped byte shows when its block is read, which may be days after the start; the journal has it whole."""
    sums = Sums(deferred=deferred)
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.restart()  # so that nothing is cached
    sums.send(3)
    sums.driver.stores.fail_next("get", DamagedStateError("a block fails its checksum"))
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    assert len(sums.driver.stores._aside) == 1
    sums.send(4)
    sums.driver.run()
    sums.check()


def test_a_state_that_is_damaged_again_stops_its_task() -> None:
    """Restoring for ever would fill the disk with states set aside, and hide that the disk is failing."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.restart()
    sums.send(3)
    for _ in range(2):
        sums.driver.stores.fail_next("get", DamagedStateError("a block fails its checksum"))
    with pytest.raises(DamagedStateError, match="fails its checksum"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_machine_that_loses_its_last_writes_replays_them() -> None:
    """The write-ahead log is not synced: after a power failure the state is older, never torn."""
    sums = Sums()
    for number in range(5):
        sums.send(number)
        sums.driver.run()
    sums.driver.stores.crash(lost_batches=3)
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_write_error_of_the_store_stops_the_task_and_loses_nothing() -> None:
    """A full disk must not become a hole in the state: the entry is in the journal and is applied next time."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.stores.fail_next("apply", CorruptStateError("no space left"))
    sums.send(2)
    with pytest.raises(CorruptStateError, match="no space left"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


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


def test_a_journal_that_lost_a_part_of_its_last_entry_stops_the_task_for_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large entry is several records. Called truncated, it would send its operator to start over."""
    monkeypatch.setattr(publisher, "CHUNK_BYTES", 40)
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


def test_somebody_elses_record_in_the_journal_stops_the_restore() -> None:
    """The journal is the authority, so what it cannot have written itself is never read over."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.produce(Output("sums.main.journal", None, b"hello", 0), partition=0)
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="no journal chunk"):
        sums.driver.run()


def test_a_journal_topic_that_is_gone_is_never_taken_for_a_new_app() -> None:
    """A lost journal must not look like a first start."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.delete("sums.main.journal")
    sums.driver.restart()
    with pytest.raises(FatalTaskError, match="existed before"):
        sums.driver.run()


def test_a_journal_with_another_retention_is_refused() -> None:
    """It would delete the only copy of the state after a week."""
    sums = Sums()
    sums.driver.run()
    sums.driver.broker.configure("sums.main.journal", {"retention.ms": "604800000"})
    sums.driver.restart()
    with pytest.raises(ConfigError, match=r"retention\.ms=604800000"):
        sums.driver.run()


def test_an_input_topic_created_again_is_refused_at_start_and_stops_a_running_worker() -> None:
    """Positions in the old topic mean nothing in the new one."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.recreate(sums.numbers)
    sums.driver.clock.advance(sums.driver.settings.check_interval_s)
    with pytest.raises(FatalTaskError, match="deleted and created again"):
        sums.driver.run()
    sums.driver.restart()
    with pytest.raises(ConfigError, match="deleted and created again"):
        sums.driver.run()


def test_inputs_with_different_numbers_of_partitions_are_refused_with_the_numbers() -> None:
    """A task owns one partition number of all of them; a key must have the same one in each."""
    sums = Sums(partitions=2)
    other = sums.app.topic("other", key=str, value=int)
    sums.driver.broker.create(TopicSpec("other", 3))
    sums.app.handler(other)(lambda _event, _ctx: None)
    with pytest.raises(
        ConfigError, match="must have equally many partitions: numbers has 2, other has 3"
    ) as caught:
        sums.driver.run()
    assert caught.value.hint is not None
    assert "create the topics alike" in caught.value.hint


def test_a_journal_that_refuses_large_entries_is_refused_with_the_command_that_mends_it() -> None:
    """It would do until the first large commit, which then could never be made."""
    sums = Sums()
    sums.driver.run()
    sums.driver.broker.configure("sums.main.journal", {"max.message.bytes": "100000"})
    sums.driver.restart()
    with pytest.raises(ConfigError, match=r"max\.message\.bytes=100000") as caught:
        sums.driver.run()
    assert "--add-config max.message.bytes=1048588" in (caught.value.hint or "")


def test_a_changed_table_schema_is_refused_with_both_schemas() -> None:
    """With defaults everywhere a renamed field would read as zero, silently."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    other = Sums()
    other.app.tables.clear()
    changed = other.app.table("totals", key=str, value=int)
    assert changed.name == "totals"
    sums.driver.restart(app=other.app)
    with pytest.raises(ConfigError, match=r"the schema of table totals changed") as caught:
        sums.driver.run()
    assert "count:int" in str(caught.value)


def test_a_stop_commits_what_is_open() -> None:
    """A deployment sends SIGTERM; nothing that was processed should be processed again."""
    sums = Sums()
    sums.driver.run()
    sums.send(1, 2, 3)
    sums.driver.step()
    assert sums.driver.outputs(sums.sums) == []
    sums.driver.stop()
    sums.check()


def test_starting_at_latest_is_resolved_once() -> None:
    """`latest` means the first start; a restart goes on where the app was, however late it is."""
    sums = Sums()
    sums.driver.settings = replace(sums.driver.settings, start="latest")
    sums.driver.send(sums.numbers, "a", 100)
    sums.driver.run()
    assert sums.driver.outputs(sums.sums) == []
    sums.driver.crash()
    sums.send(1, 2)
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_input_that_was_deleted_before_it_was_processed_stops_the_task() -> None:
    """Skipping silently would be a loss that nobody sees."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.crash()
    for number in range(5):
        sums.driver.send(sums.numbers, "a", number)
    sums.driver.broker.truncate(TopicPartition("numbers", 0), 3)
    sums.driver.restart()
    with pytest.raises(PipelineError, match="outside what it holds"):
        sums.driver.run()


def test_a_fence_in_the_middle_of_a_commit_leaves_nothing_behind() -> None:
    """What a zombie has written is aborted with its transaction: readers never see it."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.broker.fail_next("commit", FencedError("newer"), where="sums.main.0")
    sums.send(2)
    sums.driver.run()
    assert [e.value for e in sums.driver.outputs(sums.sums)] == [Sum(1, 1), Sum(2, 3)]
    sums.check()


def test_an_acquire_in_between_is_not_taken_for_our_own_commit() -> None:
    """One entry more than before may be somebody else's: only the nonce tells."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    other = Sums()
    other.driver.broker = sums.driver.broker
    other.driver.stores = MemoryStores()
    other.driver.run()  # acquires; there is nothing else to do
    sums.driver.broker.fail_next("begin", UnknownOutcomeError("ordered"), where="sums.main.0")
    sums.send(2, 3)
    sums.driver.run()
    sums.check()


def test_a_state_of_another_history_is_set_aside() -> None:
    """A directory copied from elsewhere may stand at the same seq and offset; the chain tells it apart."""
    sums, other = Sums(), Sums(seed=1)
    for history, number in ((sums, 1), (other, 1000)):
        history.send(number)
        history.driver.run()
        history.driver.crash()
    sums.driver.stores = other.driver.stores
    sums.driver.restart()
    sums.send(2)
    sums.driver.run()
    sums.check()

"""The faults that the fakes can be told to have happen."""

from __future__ import annotations

import pytest

from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import (
    AbortableError,
    CorruptStateError,
    FencedError,
    InvariantError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import TopicSpec
from pipeline.testing import ManualClock, MemoryBroker, SeededRandom
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducer, MemoryProducers
from pipeline.testing.memory_store import MemoryStores
from pipeline.testing.system import DeferredExecutor, InlineExecutor

JOURNAL = TopicPartition("journal", 0)
TASK = TaskId("app", "group", 0)
KEY = b"\x00\x00\x00\x01k"


@pytest.fixture
def broker() -> MemoryBroker:
    """A cluster with one journal."""
    made = MemoryBroker()
    made.create(TopicSpec("journal", 1))
    return made


def _producer(broker: MemoryBroker) -> MemoryProducer:
    producer = MemoryProducers(broker).open("task")
    producer.init()
    return producer


def _write(producer: MemoryProducer, chunk: bytes) -> None:
    producer.begin()
    producer.append(JOURNAL, [chunk])
    producer.flush()
    producer.commit()


def _journal(broker: MemoryBroker) -> list[bytes]:
    reader = MemoryJournalReader(broker)
    bounds = reader.bounds(JOURNAL)
    return [chunk for _, chunk in reader.read(JOURNAL, bounds.start, bounds.stable_end)]


@pytest.mark.parametrize(("after", "journal"), [(False, []), (True, [b"a"])])
def test_a_commit_of_unknown_outcome_may_or_may_not_have_happened(
    broker: MemoryBroker, *, after: bool, journal: list[bytes]
) -> None:
    """Both must be met by the same error, or the runtime could tell them apart."""
    producer = _producer(broker)
    broker.fail_next("commit", UnknownOutcomeError("lost"), after=after, where="task")
    with pytest.raises(UnknownOutcomeError):
        _write(producer, b"a")
    producer.close()
    _producer(broker)
    assert _journal(broker) == journal
    assert broker.faults.left() == []


def test_an_ordered_fault_waits_for_its_call_and_its_place(broker: MemoryBroker) -> None:
    """A fault that hits something else would make a test pass for the wrong reason."""
    broker.fail_next("flush", AbortableError("refused"), where="another")
    _write(_producer(broker), b"a")
    assert broker.faults.left() == ["flush"]


def test_a_fence_from_elsewhere_fails_the_commit(broker: MemoryBroker) -> None:
    """A test does not need a second runtime to lose a task."""
    producer = _producer(broker)
    producer.begin()
    producer.append(JOURNAL, [b"a"])
    producer.flush()
    broker.fence("task")
    with pytest.raises(FencedError):
        producer.commit()
    assert _journal(broker) == []


def test_a_stray_commit_ends_half_a_transaction(broker: MemoryBroker) -> None:
    """A delayed request of the last commit arrives in the middle of the next one."""
    producer = _producer(broker)
    producer.begin()
    producer.append(JOURNAL, [b"half"])
    producer.flush()
    broker.stray_commit("task")
    assert _journal(broker) == [b"half"]


def test_a_lost_tail_lets_the_next_entry_follow_too_closely(broker: MemoryBroker) -> None:
    """An unclean election takes the last marker, and the entry check has to notice."""
    producer = _producer(broker)
    _write(producer, b"a")
    broker.lose_tail(JOURNAL, 1)
    producer.begin()
    producer.append(JOURNAL, [b"b"])
    assert producer.flush() == 1


def test_a_journal_that_does_not_answer_is_asked_again(broker: MemoryBroker) -> None:
    """Faults are met once, in the order in which they were ordered."""
    reader = MemoryJournalReader(broker)
    broker.fail_next("bounds", UnreachableError("first"))
    broker.fail_next("bounds", UnreachableError("second"))
    for message in ("first", "second"):
        with pytest.raises(UnreachableError, match=message):
            reader.bounds(JOURNAL)
    assert reader.bounds(JOURNAL).end == 0


def test_a_crash_keeps_what_was_applied_and_frees_the_locks() -> None:
    """Dropping the handles is what a killed process does."""
    stores = MemoryStores()
    store = stores.open(TASK)
    store.apply({KEY: b"1"}, b"p1")
    stores.crash()
    with pytest.raises(InvariantError):
        store.get(KEY)
    again = stores.open(TASK)
    assert (again.get(KEY), again.position()) == (b"1", b"p1")


def test_a_machine_crash_takes_whole_batches_back() -> None:
    """The write-ahead log is not synced: what is lost is the newest, and never half of it."""
    stores = MemoryStores()
    store = stores.open(TASK)
    store.apply({KEY: b"1"}, b"p1")
    store.apply({KEY: None, KEY + b"2": b"2"}, b"p2")
    store.apply({KEY: b"3"}, b"p3")
    stores.crash(lost_batches=2)
    assert stores.contents(TASK) == {KEY: b"1"}
    assert stores.open(TASK).position() == b"p1"


@pytest.mark.parametrize(("after", "position"), [(False, None), (True, b"p1")])
def test_a_failed_apply_may_or_may_not_have_written(*, after: bool, position: bytes | None) -> None:
    """A full disk is told from a torn write by neither."""
    stores = MemoryStores()
    store = stores.open(TASK)
    stores.fail_next("apply", CorruptStateError("disk"), after=after, task=TASK)
    with pytest.raises(CorruptStateError):
        store.apply({KEY: b"1"}, b"p1")
    assert store.position() == position


def test_deferred_steps_run_when_told_and_in_an_order_of_the_seed() -> None:
    """A schedule that found a bug must be repeatable."""

    def order(seed: int) -> list[int]:
        executor, ran = DeferredExecutor(seed), list[int]()
        for number in range(8):
            executor.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
        assert ran == []
        executor.close()
        return ran

    assert order(1) == order(1)
    assert sorted(order(2)) == list(range(8))
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_asking_for_a_result_runs_the_step() -> None:
    """A wait for a step that is never run would not end."""
    executor = DeferredExecutor()
    pending = executor.submit(lambda: 7)
    assert not pending.done()
    assert pending.result() == 7
    failing = executor.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    dropped = executor.submit(lambda: 7)
    executor.drop()
    with pytest.raises(InvariantError):
        dropped.result()


def test_inline_steps_are_done_when_submitted() -> None:
    """Their errors are raised where the result is requested."""
    pending = InlineExecutor().submit(lambda: 1 // 0)
    assert pending.done()
    with pytest.raises(ZeroDivisionError):
        pending.result()


def test_time_passes_only_during_a_sleep() -> None:
    """Time-outs are tested without waiting for them."""
    clock = ManualClock(wall_ms=1_000)
    clock.sleep(2.5)
    clock.advance(1)
    assert (clock.monotonic_s(), clock.wall_ms()) == (3.5, 4_500)
    clock.set_wall_ms(50)
    assert (clock.monotonic_s(), clock.wall_ms()) == (3.5, 50)


def test_the_same_seed_draws_the_same() -> None:
    """Nonces and jitter of a failing run come again."""
    one, other = SeededRandom(3), SeededRandom(3)
    assert (one.token(8), one.uniform(0, 1)) == (other.token(8), other.uniform(0, 1))

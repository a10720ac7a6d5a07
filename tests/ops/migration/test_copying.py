"""Copies of topics on a broker in memory: order per key, crashes at every step, a topic that grew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import App
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FatalTaskError,
    FencedError,
    InputError,
    PipelineError,
    UnknownOutcomeError,
)
from pipeline.ops.migration.copying import Copied, Copy, copied_up_to, copy_task, run_copy
from pipeline.ports import JournalBounds, Output, Step, TopicSpec
from pipeline.testing import SimulatedCrash, TestDriver
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.steps import COMMIT_STEPS

COPY_STEPS = [
    Step.BEFORE_GENESIS,
    Step.DURING_GENESIS,
    Step.AFTER_GENESIS,
    *COMMIT_STEPS,
]
BEGIN_STEPS = {Step.BEFORE_GENESIS, Step.DURING_GENESIS, Step.AFTER_GENESIS}
KEYS = [b"key-%d" % number for number in range(9)]


class Case:
    """Topic `old`, numbered records in it, and topic `new`."""

    def __init__(self, before: int = 2, wide: int = 5) -> None:
        self.driver = TestDriver(App("copies"))
        self.broker = self.driver.broker
        self.broker.create(TopicSpec("old", before))
        self.broker.create(TopicSpec("new", wide))
        self.before = before
        self.sent: dict[bytes | None, list[int]] = defaultdict(list)
        self.count = 0
        self.at_each_step: Callable[[], None] = lambda: None
        self.at_each_look: Callable[[], None] = lambda: None

    def send(self, *keys: bytes | None, by: int | None = None) -> None:
        """A record for each key, placed by so many partitions; default: as many as there are."""
        for key in keys:
            self.count += 1
            self.sent[key].append(self.count)
            record = Output("old", key, b"%d" % self.count, 1_000 + self.count)
            self.broker.produce(record, partition=partition_of(key, by) if key and by else None)

    def grow(self, by: int = 1) -> None:
        self.broker.add_partitions("old", by)

    def plan(self) -> Copy:
        old, new = self.broker.describe("old"), self.broker.describe("new")
        assert old is not None
        assert new is not None
        return Copy(old, new, self.before)

    def copy(self) -> Copied:
        environment = replace(self.driver.environment(), steps=self, journals=lambda: _Slow(self))
        return run_copy(self.plan(), "test", environment, WorkerSettings(), lambda _: None)

    def reached(self, step: Step, task: TaskId) -> None:
        self.at_each_step()
        self.driver._steps.reached(step, task)

    def copy_until_done(self) -> None:
        """Again and again, as an operator does."""
        for _ in range(20):
            try:
                self.copy()
            except SimulatedCrash:
                continue
            return
        raise AssertionError("the copy did not end")

    def copied(self) -> dict[bytes | None, list[int]]:
        found: dict[bytes | None, list[int]] = defaultdict(list)
        for record in self.broker.records("new"):
            found[record.key()].append(int(record.value() or b""))
        return found

    def check(self) -> None:
        """Each record once, in its order per key."""
        copied = self.copied()
        assert sorted(copied.pop(None, [])) == self.sent.pop(None, [])
        assert copied == self.sent


class _Slow(MemoryJournalReader):
    """Whenever an end is asked for, there is time for others to write."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.broker)
        self._case = case

    def bounds(self, journal: TopicPartition) -> JournalBounds:
        self._case.at_each_look()
        return super().bounds(journal)


def test_a_copy_is_the_same_but_for_its_place() -> None:
    """Keys, values, headers and timestamps are what handlers see."""
    case = Case()
    rows = [
        (b"a", b"\xff\x00", 7, (("event-id", b"1"), ("event-id", b"2"))),
        (None, b"", 8, ()),
        (b"a", None, 9, ()),
        (b"", b"x", 10, ()),
        (b"e", b"epoch", 1, ()),
    ]
    rows.sort(key=itemgetter(2))
    for key, value, timestamp_ms, headers in rows:
        when_ms = 0 if value == b"epoch" else timestamp_ms  # which the client cannot send
        case.broker.produce(Output("old", key, value, when_ms, headers))
    assert case.copy() == Copied(5, 0)
    found = sorted(case.broker.records("new"), key=lambda record: record.timestamp()[1])
    assert [(r.key(), r.value(), r.timestamp()[1], tuple(r.headers() or ())) for r in found] == rows
    assert all(record.partition() == partition_of(record.key() or b"", 5) for record in found if record.key())


def test_a_record_with_unreadable_headers_is_not_copied() -> None:
    """A copy without them would not be the record: it stops there, says where, and has copied what comes before."""
    case = Case()
    headers: Any = [(b"\xff", b"1")]
    case.broker.produce(Output("old", b"a", b"1", 7, headers))
    with pytest.raises(
        InputError, match=r"old\[\d\]@0 cannot be copied unchanged: 1 of 1 .* not valid UTF-8"
    ) as raised:
        case.copy()
    assert "delete the records up to this offset" in str(raised.value)
    assert case.broker.records("new") == []


def test_running_it_again_copies_what_came_since_and_nothing_twice() -> None:
    """It is run until producers have stopped, and once more to be sure."""
    case = Case()
    case.send(*KEYS * 3)
    assert case.copy() == Copied(27, 0)
    assert case.copy() == Copied(0, 27)
    case.send(*KEYS)
    assert case.copy() == Copied(9, 27)
    case.check()
    reader = MemoryJournalReader(case.broker)
    ends = {place: reader.bounds(place).stable_end for place in case.plan().partitions}
    assert copied_up_to(case.plan(), reader) == ends


def test_partitions_are_merged_by_time() -> None:
    """A copy partition by partition would let a reader's event time run ahead by all of the topic."""
    case = Case(before=3, wide=1)
    case.send(*KEYS * 20)
    case.copy()
    times = [record.timestamp()[1] for record in case.broker.records("new")]
    assert times == sorted(times)


@pytest.mark.parametrize("step", COPY_STEPS)
@pytest.mark.parametrize("grown", [False, True])
def test_a_crash_at_each_step_leaves_a_copy_that_continues(
    step: Step, grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator types the same command again; nothing is lost, doubled or out of order."""
    monkeypatch.setattr("pipeline.ops.migration.copying.BATCH_RECORDS", 4)
    case = Case()
    case.send(*KEYS * 2, None, None)
    if grown:
        case.grow()
        case.send(*KEYS * 2, None)
    for nth in range(1, 2 if step in BEGIN_STEPS else 6):
        case.driver.crash_at(step, nth=nth)
        with pytest.raises(SimulatedCrash):
            case.copy()
        case.driver.clear_crashes()
        case.send(*KEYS)
    case.copy()
    case.check()


@settings(max_examples=150)
@given(data=st.data(), before=st.integers(1, 4), more=st.integers(1, 4), wide=st.integers(1, 6))
def test_order_holds_in_a_topic_that_grew_also_under_producers_and_crashes(
    data: st.DataObject, before: int, more: int, wide: int
) -> None:
    """A key's producer has heard of the new partitions at some moment, also in the middle of a copy; never back."""
    case = Case(before=before, wide=wide)
    heard: set[bytes] = set()
    some_keys = st.lists(st.sampled_from(KEYS), max_size=3)

    def produce() -> None:
        if heard_now := case.broker.describe("old"):
            grown = heard_now.partitions > before
            for key in data.draw(some_keys):
                if grown and data.draw(st.booleans()):
                    heard.add(key)
                case.send(key, by=before + more if key in heard else before)

    produce()
    case.grow(more)
    case.at_each_step = case.at_each_look = produce
    for _ in range(data.draw(st.integers(1, 3))):
        case.driver.crash_at(data.draw(st.sampled_from(COPY_STEPS)), nth=data.draw(st.integers(1, 4)))
        case.copy_until_done()
        case.driver.clear_crashes()
    case.at_each_step = case.at_each_look = lambda: None
    case.copy()
    case.check()


@pytest.mark.parametrize("call", ["send", "append", "flush", "commit"])
@pytest.mark.parametrize(
    ("error", "after"),
    [(AbortableError("x"), False), (UnknownOutcomeError("x"), False), (UnknownOutcomeError("x"), True)],
)
def test_a_failed_transaction_is_resolved_by_the_journal(
    call: str, error: PipelineError, after: bool
) -> None:
    """The copy commits as a task does; its faults are met here only to see that they are met at all."""
    case = Case()
    case.send(*KEYS)
    case.driver.broker.fail_next(call, error, after=after, where=copy_task("new").transactional_id)
    case.copy()
    assert not case.broker.faults.left()
    case.check()


def test_of_two_copies_into_one_topic_the_older_one_ends() -> None:
    """Two operators, or one terminal that was forgotten."""
    case = Case()
    case.copy()
    case.send(*KEYS)

    def take_over() -> None:
        case.at_each_step = lambda: None
        case.copy()

    case.at_each_step = take_over
    with pytest.raises(FencedError, match="this copy into topic new was stopped by a newer one"):
        case.copy()
    case.check()


def test_a_record_of_another_partitioner_is_refused() -> None:
    """If a key is in a third partition, the order of its records is unknown."""
    case = Case()
    case.send(*KEYS)
    case.grow(3)
    stray = next(n for n in range(5) if n not in {partition_of(b"a", 2), partition_of(b"a", 5)})
    case.broker.produce(Output("old", b"a", b"0", 5_000), partition=stray)
    with pytest.raises(InputError, match=rf"old\[{stray}\]@\d+: murmur2 .* with 2 and with 5 partitions"):
        case.copy()


def test_a_topic_that_holds_other_records_is_not_copied_into() -> None:
    """They would be taken for copies."""
    case = Case()
    case.broker.produce(Output("new", b"a", b"0", 5_000))
    with pytest.raises(ConfigError, match="already holds records"):
        case.copy()
    assert case.broker.describe(copy_task("new").journal.topic) is None


def test_topics_that_change_under_a_copy_end_it() -> None:
    """The new topic's keys would be in two places; positions in a recreated topic mean nothing."""
    case = Case()
    case.send(*KEYS)
    case.copy()
    case.broker.add_partitions("new", 1)
    with pytest.raises(ConfigError, match="topic new had 5 partitions and has 6"):
        case.copy()

    case = Case()
    case.send(*KEYS)
    case.at_each_step = lambda: _widen_once(case)
    with pytest.raises(ConfigError, match="topic new had 5 partitions and has 6"):
        case.copy()

    case = Case()
    case.send(*KEYS)
    case.copy()
    case.broker.delete("old")
    case.broker.create(TopicSpec("old", 2))
    with pytest.raises(ConfigError, match="deleted and created again"):
        case.copy()


def _widen_once(case: Case) -> None:
    case.at_each_step = lambda: None
    case.broker.add_partitions("new", 1)


def test_another_topic_is_not_copied_into_the_same_one() -> None:
    """One new topic is one old one."""
    case = Case()
    case.send(*KEYS)
    case.copy()
    case.before = 1
    with pytest.raises(ConfigError, match="started as a copy of old, placed by 2 partitions"):
        case.copy()


def test_what_retention_took_before_it_was_copied_ends_the_copy() -> None:
    """A gap is said, not skipped."""
    case = Case(before=1)
    case.send(*KEYS)
    case.copy()
    case.send(*KEYS * 2)
    case.broker.truncate(TopicPartition("old", 0), 12)
    with pytest.raises(FatalTaskError, match=r"old\[0\] no longer holds offsets 9 to 11"):
        case.copy()

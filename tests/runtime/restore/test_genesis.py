"""Genesis on in-memory ports, where a cluster of several nodes answers for one that has not heard yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from pipeline.config import WorkerSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    FencedError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import JournalBounds, TopicInfo, TopicSpec
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducer
from tests.support.runtime.sums import Sums


@pytest.mark.parametrize("heard_after", [1, 3, 10_000])
def test_a_journal_that_a_node_has_not_heard_of_yet_is_asked_for_again(
    heard_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that answers is not the one that created it; but waiting for it has an end."""
    asked = 0
    describe = MemoryCluster.describe

    def late(self: MemoryCluster, names: Sequence[str]) -> dict[str, TopicInfo]:
        nonlocal asked
        found = dict(describe(self, names))
        if any(name.endswith(".journal") for name in found):
            asked += 1
            if asked <= heard_after:
                return {}
        return found

    monkeypatch.setattr(MemoryCluster, "describe", late)
    sums = Sums()
    sums.send(1)
    if heard_after < 100:
        sums.driver.run()
        sums.check()
    else:
        with pytest.raises(
            FatalTaskError, match=r"sums\.main\.journal was created, but did not appear within 10 s"
        ):
            sums.driver.run()


@pytest.mark.parametrize("call", ["init", "begin", "append", "flush", "commit"])
def test_a_first_start_that_is_fenced_by_another_one_continues(call: str) -> None:
    """Workers of a new app start together, and only one of them can write its genesis."""
    sums = Sums()
    sums.send(1)
    where = "sums.main.genesis"
    sums.driver.broker.fail_next(call, FencedError("another worker starts, too"), where=where)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.check()


def test_a_genesis_that_another_worker_has_written_just_before_its_fence_is_not_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was not there at the first look; two geneses in one journal would stop every task of the group."""
    sums, other = Sums(partitions=2), Sums(partitions=2)
    vars(other.driver)["broker"] = sums.driver.broker
    sums.send(1)
    init, others = MemoryBroker.init, [other]

    def after_another(self: MemoryBroker, transactional_id: str) -> int:
        if transactional_id == "sums.main.genesis" and others:
            others.pop().driver.run()
            other.driver.stop()
        return init(self, transactional_id)

    monkeypatch.setattr(MemoryBroker, "init", after_another)
    sums.driver.run()
    sums.check()
    assert len(other.driver.log_events("genesis_written")) == 1
    assert sums.driver.log_events("genesis_written") == []


def test_a_journal_that_was_just_created_for_other_tasks_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers whose apps declare different numbers start a group at once; the journal was not there before."""
    sums = Sums(partitions=4, tasks=2)
    create = MemoryCluster.create

    def after_another(self: MemoryCluster, specs: Sequence[TopicSpec]) -> None:
        create(
            self, [replace(spec, partitions=4) if spec.name.endswith(".journal") else spec for spec in specs]
        )

    monkeypatch.setattr(MemoryCluster, "create", after_another)
    with pytest.raises(ConfigError, match="has 4 partitions, and this worker has chosen 2 tasks") as refused:
        sums.driver.run()
    assert "start this worker again" in str(refused.value.hint)
    assert sums.driver.broker.records("sums.main.journal") == []


@pytest.mark.parametrize("happened", [True, False])
def test_a_genesis_whose_outcome_is_unknown_is_there_forevery_task_or_for_none(happened: bool) -> None:
    """A part of it would pass for a loss at every later start."""
    sums = Sums(partitions=3)
    sums.send(1)
    unknown = UnknownOutcomeError("no answer")
    sums.driver.broker.fail_next("commit", unknown, after=happened, where="sums.main.genesis")
    sums.driver.run()
    sums.check()
    assert len(sums.driver.log_events("genesis_written")) == (not happened)


@pytest.mark.unverified
def test_a_genesis_that_one_partition_has_lost_is_a_loss() -> None:
    """All partitions begin in one transaction, so one without an entry has lost what it had."""
    sums = Sums(partitions=3)
    sums.send(1)
    sums.driver.run()
    sums.driver.restart(empty_disk=True)
    sums.driver.broker.lose_tail(TopicPartition("sums.main.journal", 2), 0)
    with pytest.raises(FatalTaskError, match="1 of 3 journal partitions without a genesis entry"):
        sums.driver.run()


@pytest.mark.parametrize("unseen_for", [1, 2, 10_000])
def test_a_genesis_that_another_worker_is_writing_is_not_taken_for_a_loss(
    unseen_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction becomes visible partition by partition; one that stays invisible is no proof of a loss."""
    sums = Sums(partitions=3)
    sums.send(1)
    sums.driver.run()
    sums.driver.restart(empty_disk=True)
    looks = 0
    bounds = MemoryJournalReader.bounds

    def half_seen(self: MemoryJournalReader, journal: TopicPartition) -> JournalBounds:
        nonlocal looks
        found = bounds(self, journal)
        if journal == TopicPartition("sums.main.journal", 2):
            looks += 1
            if looks <= unseen_for:
                return JournalBounds(start=0, stable_end=0, end=found.end)
        return found

    monkeypatch.setattr(MemoryJournalReader, "bounds", half_seen)
    if unseen_for < 100:
        sums.driver.run()
        sums.check()
    else:
        with pytest.raises(
            UnreachableError, match=r"sums\.main\.journal\[2\]: the queried broker reports its end at 0"
        ):
            sums.driver.run()


def test_a_journal_that_is_truncated_while_a_worker_starts_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another worker's checkpoint may remove the very entry at which the look was to begin."""
    sums = Sums.begun()
    sums.driver.restart(empty_disk=True)
    reads = 0
    read = MemoryJournalReader.read

    def truncated(
        self: MemoryJournalReader, journal: TopicPartition, start: int, end: int
    ) -> Iterator[tuple[int, bytes]]:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise RetriableError(f"{journal}: position {start} is outside of the partition's offsets")
        return read(self, journal, start, end)

    monkeypatch.setattr(MemoryJournalReader, "read", truncated)
    sums.driver.run()
    sums.check()


def test_the_ends_of_all_inputs_are_asked_for_at_once_and_before_the_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request for each of hundreds of partitions, inside the transaction, took longer than it may last."""
    sums = Sums(partitions=5, settings=WorkerSettings(worker_id="test", start="latest"))
    sums.driver.send(sums.numbers, "a", 1)
    calls: list[str] = []
    begin, ends = MemoryProducer.begin, MemoryJournalReader.highest_ends

    def noted_begin(self: MemoryProducer) -> None:
        calls.append("begin")
        begin(self)

    def noted_ends(
        self: MemoryJournalReader, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        calls.append(f"{len(partitions)} ends")
        return ends(self, partitions)

    monkeypatch.setattr(MemoryProducer, "begin", noted_begin)
    monkeypatch.setattr(MemoryJournalReader, "highest_ends", noted_ends)
    sums.driver.run()
    assert calls[:3] == ["begin", "5 ends", "begin"]  # the barrier, the ends, the genesis
    sums.send(2)
    sums.driver.run()
    sums.check()

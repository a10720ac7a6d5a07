"""A task that others have run for a long time: what is read of its journal is bounded in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pipeline.core.journal_format import Entry
from pipeline.core.names import TopicPartition
from pipeline.errors import UnknownOutcomeError
from pipeline.runtime.journal_backend import owner_after
from pipeline.testing.memory_clients import MemoryJournalReader
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.sums import Sums

MAX_SEARCHED_ENTRIES = 8
COMMITS = 16
HELD = 5


class Held:
    """The most entries with rows that were alive at any moment of a read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self.chunks = 0
        read = MemoryJournalReader.read

        def counted(
            reader: MemoryJournalReader, journal: TopicPartition, start: int, end: int
        ) -> Iterator[tuple[int, bytes]]:
            for chunk in read(reader, journal, start, end):
                alive = sum(isinstance(found, Entry) and bool(found.delta) for found in gc.get_objects())
                self.most = max(self.most, alive - self._before)
                self.chunks += 1
                yield chunk

        gc.collect()
        self._before = sum(isinstance(found, Entry) and bool(found.delta) for found in gc.get_objects())
        monkeypatch.setattr(MemoryJournalReader, "read", counted)


def with_another_owner() -> tuple[Sums, Sums]:
    """A worker that sleeps after its first commit, and one that has taken its task and commits a lot."""
    sleeper, owner = Sums.begun(), Sums(seed=1)
    owner.driver.broker, owner.driver.stores = sleeper.driver.broker, MemoryStores()
    owner.driver.clock = sleeper.driver.clock
    owner.sent = sleeper.sent
    for number in range(COMMITS):
        owner.send(number)
        owner.driver.run()
    return sleeper, owner


@pytest.mark.parametrize("known", [True, False])
def test_a_look_for_the_owner_holds_one_entry_at_a_time(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of everything since would take as much memory as the journal."""
    monkeypatch.setattr("pipeline.runtime.journal_backend.MAX_SEARCHED_ENTRIES", MAX_SEARCHED_ENTRIES)
    sleeper, owner = with_another_owner()
    worker = sleeper.driver.worker
    (task,) = worker.runs[0].tasks.values()
    held = Held(monkeypatch)
    applied = task.applied if known else None
    found = owner_after(sleeper.task, applied, owner.driver.environment())  # type: ignore[arg-type]
    assert held.chunks >= MAX_SEARCHED_ENTRIES
    assert held.most <= HELD
    assert (found is not None) == known  # its acquire entry is further back than is looked at without a place


def test_a_renewal_reads_no_further_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries after ours say as much as a thousand."""
    sleeper, _owner = with_another_owner()
    sleeper.driver.broker.fail_next("begin", UnknownOutcomeError("no answer"), where="sums.main.0")
    held = Held(monkeypatch)
    sleeper.send(1)
    sleeper.driver.step()
    sleeper.driver.clock.advance(1.0)
    sleeper.driver.step()
    sleeper.driver.step()
    assert held.most <= HELD

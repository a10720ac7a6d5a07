"""The index of what is due: the order of entries, undone records, commits, and a model beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.api.due_index import DueEntries, DueIndex, index_key, split_index_key
from pipeline.api.table import TaskOverlay, table_prefix
from pipeline.core.event_time import NEVER_MS
from pipeline.core.inputs import row_prefix
from pipeline.errors import InvariantError
from pipeline.testing.memory_store import MemoryStore, MemoryStores
from tests.support.tables import TASK

TIMERS = table_prefix("timers")
OTHER = table_prefix("other")
Entry = tuple[int, bytes]


class Rig:
    """An index over a store, with what the runtime does to it. `chunk`: how many entries it reads at once."""

    def __init__(self, rows: bytes = b"", chunk: int = 2) -> None:
        self.store: MemoryStore = MemoryStores().open(TASK)
        self.rows, self.chunk = rows, chunk
        self.restart()

    def restart(self) -> None:
        """What is in memory is lost."""
        self.overlay = TaskOverlay()
        self.index = DueIndex(self.store, self.overlay, self.rows, self.chunk)

    @property
    def timers(self) -> DueEntries:
        return self.index.entries(TIMERS)

    def keep(self) -> None:
        """The record, or the step, has succeeded."""
        self.overlay.undo.clear()

    def seal(self) -> None:
        self.keep()
        self.overlay.sealed = self.index.take_writes()

    def retire(self) -> None:
        self.store.apply(self.overlay.sealed, b"position")
        self.overlay.sealed = {}

    def commit(self) -> None:
        self.seal()
        self.retire()

    def fire(self, until_ms: int, most: int = 1_000_000) -> list[Entry]:
        return list(self.fired(until_ms, most))

    def fired(self, until_ms: int, most: int) -> Iterator[Entry]:
        for number, (due_ms, key) in enumerate(self.timers.due(until_ms)):
            if number == most:
                return
            self.timers.remove(due_ms, key)
            self.keep()
            yield due_ms, key


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_entries_are_due_in_the_order_of_time_and_key(rig: Rig) -> None:
    """Two timers of one time must fire in the same order after each restart."""
    for entry in [(20, b"a"), (10, b"b"), (300, b"a"), (10, b"a"), (21, b"")]:
        rig.timers.add(*entry)
    assert rig.timers.next_ms == 10
    assert rig.fire(21) == [(10, b"a"), (10, b"b"), (20, b"a"), (21, b"")]
    assert rig.timers.next_ms == 300


def test_entries_survive_a_restart_once_they_are_committed(rig: Rig) -> None:
    """The index is rows of the state: what is not committed is lost with its record, what is committed is not."""
    rig.timers.add(10, b"a")
    rig.timers.add(11, b"b")
    rig.commit()
    rig.timers.remove(10, b"a")
    rig.timers.add(5, b"c")
    rig.restart()
    assert rig.fire(100) == [(10, b"a"), (11, b"b")]


def test_entries_of_the_commit_in_progress_are_found(rig: Rig) -> None:
    """Between the seal and the apply, they are neither in the store nor among the open writes."""
    for number in range(20):
        rig.timers.add(number, b"")
    rig.seal()
    rig.timers.remove(15, b"")
    rig.timers.add(25, b"")
    assert [due for due, _ in rig.fire(100)] == [*range(15), *range(16, 20), 25]


def test_an_undone_record_leaves_the_entries_as_they_were(rig: Rig) -> None:
    """A handler that raises has armed and cancelled nothing."""
    rig.timers.add(10, b"a")
    rig.timers.add(12, b"b", waits=True)
    rig.keep()
    rig.timers.remove(10, b"a")
    rig.timers.add(10, b"a", waits=True)
    rig.timers.remove(12, b"b")
    rig.timers.add(5, b"c")
    rig.overlay.take_back()
    assert rig.fire(100) == [(10, b"a")]
    rig.commit()
    assert rig.fire(100) == [(12, b"b")]


def test_an_entry_that_waits_is_due_after_the_seal(rig: Rig) -> None:
    """A timer that arms itself must not fire forever between two records."""
    rig.timers.add(10, b"a", waits=True)
    assert rig.timers.next_ms == NEVER_MS
    assert rig.fire(100) == []
    rig.seal()
    assert rig.timers.next_ms == 10
    assert rig.fire(100) == [(10, b"a")]


def test_an_entry_that_is_moved_while_others_are_due_keeps_the_order(rig: Rig) -> None:
    """A row that is due later is found by its early entry, and takes its own place among the others."""
    rig.timers.add(10, b"moved")
    rig.timers.add(15, b"b")
    rig.timers.add(30, b"c")
    seen = []
    for due_ms, key in rig.timers.due(30):
        rig.timers.remove(due_ms, key)
        if (due_ms, key) == (10, b"moved"):
            rig.timers.add(20, key)
        else:
            seen.append((due_ms, key))
    assert seen == [(15, b"b"), (20, b"moved"), (30, b"c")]


def test_an_entry_that_is_not_removed_is_a_bug(rig: Rig) -> None:
    """A source that forgets to remove its step would fire it forever."""
    rig.timers.add(10, b"a")
    due = rig.timers.due(10)
    next(due)
    with pytest.raises(InvariantError, match="was not removed"):
        next(due)


def test_sources_do_not_see_the_entries_of_each_other(rig: Rig) -> None:
    """A queue that waits for a retry must not hold those of other names."""
    rig.timers.add(10, b"a")
    rig.index.entries(OTHER).add(5, b"b")
    rig.commit()
    assert rig.index.entries(TIMERS) is rig.timers
    assert rig.fire(100) == [(10, b"a")]
    assert rig.index.entries(OTHER).next_ms == 5


def test_entries_begin_with_the_partition(rig: Rig) -> None:
    """A reset of one partition, and a migration, find the entries by this prefix."""
    rig = Rig(rows=row_prefix(3))
    rig.timers.add(10, b"a")
    rig.commit()
    full_key = index_key(TIMERS, 10, b"a", row_prefix(3))
    assert list(rig.store.scan(row_prefix(3))) == [(full_key, b"")]
    assert split_index_key(full_key, row_prefix(3)) == (TIMERS, 10, b"a")
    assert split_index_key(full_key) is None
    assert split_index_key(row_prefix(3) + b"\x00tc", row_prefix(3)) is None


def test_the_scan_does_not_return_to_finished_entries() -> None:
    """A scan over the tombstones of 10,000 entries takes longer than the steps."""
    rig = Rig(chunk=16)
    for number in range(1_000):
        rig.timers.add(number, b"")
    rig.commit()
    rig.restart()
    starts: list[bytes] = []
    scan = rig.store.scan
    rig.store.scan = lambda prefix, start=b"": starts.append(start) or scan(prefix, start)  # type: ignore[method-assign, func-returns-value]
    assert len(rig.fire(2_000)) == 1_000
    assert starts == sorted(set(starts))
    assert len(starts) <= 8


def test_few_entries_are_in_memory(rig: Rig) -> None:
    """A million timers must not be a million objects in memory."""
    rig = Rig(chunk=16)
    for number in range(5_000):
        rig.timers.add(number * 7 % 5_000, b"")
        if number % 500 == 0:
            rig.commit()
    rig.commit()
    assert len(rig.timers._live) <= 64
    assert len(rig.timers._near) <= 65
    assert [due for due, _ in rig.fire(5_000)] == list(range(5_000))


entries = st.tuples(st.integers(0, 12), st.sampled_from([b"", b"a", b"b"]))


class IndexMachine(RuleBasedStateMachine):
    """Random entries beside a set, with steps, undone records, commits and restarts at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.model: set[Entry] = set()
        self.waiting: set[Entry] = set()
        self.before: tuple[set[Entry], set[Entry]] = set(), set()
        self.committed: set[Entry] = set()
        self.sealed: set[Entry] | None = None

    @initialize(stored=st.sets(entries), chunk=st.integers(1, 3))
    def start_with_entries_on_disk(self, stored: set[Entry], chunk: int) -> None:
        self.rig = Rig(chunk=chunk)
        for entry in stored:
            self.rig.timers.add(*entry)
        self.rig.commit()
        self.rig.restart()
        self.model, self.committed = set(stored), set(stored)
        self.keep()

    @rule(entry=entries, waits=st.booleans())
    def add(self, entry: Entry, waits: bool) -> None:
        if entry in self.model:
            return
        self.rig.timers.add(*entry, waits=waits)
        self.model.add(entry)
        if waits:
            self.waiting.add(entry)

    @rule(entry=entries)
    def remove(self, entry: Entry) -> None:
        self.rig.timers.remove(*entry)
        self.model.discard(entry)
        self.waiting.discard(entry)

    @rule()
    def keep(self) -> None:
        self.rig.keep()
        self.before = set(self.model), set(self.waiting)

    @rule()
    def undo(self) -> None:
        self.rig.overlay.take_back()
        self.model, self.waiting = set(self.before[0]), set(self.before[1])

    @rule(until_ms=st.integers(0, 12), most=st.integers(0, 5))
    def fire(self, until_ms: int, most: int) -> None:
        self.keep()
        wanted = sorted(entry for entry in self.model - self.waiting if entry[0] <= until_ms)[:most]
        assert self.rig.fire(until_ms, most) == wanted
        self.model -= set(wanted)
        self.keep()

    @precondition(lambda self: self.sealed is None)
    @rule()
    def seal(self) -> None:
        self.rig.seal()
        self.waiting = set()
        self.sealed = set(self.model)
        self.keep()

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def retire(self) -> None:
        self.rig.retire()
        self.committed, self.sealed = self.sealed or set(), None

    @rule()
    def restart(self) -> None:
        """A crash. The commit in progress has happened or not; here, it has not."""
        self.rig.restart()
        self.model, self.waiting, self.sealed = set(self.committed), set(), None
        self.keep()

    @invariant()
    def the_next_time_is_that_of_the_first_entry(self) -> None:
        assert self.rig.timers.next_ms == min((due for due, _ in self.model - self.waiting), default=NEVER_MS)

    def teardown(self) -> None:
        self.waiting = set()
        self.rig.overlay.undo.clear()
        if self.sealed is not None:
            self.rig.retire()
        self.rig.commit()
        assert self.rig.fire(12) == sorted(self.model)


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=80, stateful_step_count=40)

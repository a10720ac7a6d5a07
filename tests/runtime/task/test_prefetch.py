"""Rows of a batch's keys are read in one call, if the handlers read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import Context, Event
from pipeline.errors import CorruptStateError
from pipeline.runtime.task.prefetch import LEAST_RECORDS, PAUSE_BATCHES
from pipeline.testing.memory_log import MemoryRecord
from tests.support.runtime.processor_rig import Rig, records


class Counted:
    """The rig's store, with the number of keys of each read."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.single = 0
        self.many: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: bytes) -> Any:
        self.single += 1
        return self._store.get(key)

    def get_many(self, keys: Sequence[bytes]) -> Any:
        self.many.append(len(keys))
        return self._store.get_many(keys)


class Prefetched(Rig):
    """A handler that reads one row for each record: of its key, or of another one."""

    def __init__(self, *, other: bool = False) -> None:
        super().__init__()
        self._prefix = "other-" if other else ""
        self._count = 0
        self.app.handler(self.inputs, on_error="skip")(self.count)
        self.start()
        self.store = self.table._store = Counted(self.table._store)
        self.seen: list[int] = []

    def count(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.sums)
        self.seen.append(table.get(self._prefix + event.key, -1))
        table[self._prefix + event.key] = event.value

    def batch(self, count: int = LEAST_RECORDS) -> tuple[int, list[int]]:
        """Process records with new keys. Returns the reads of single rows, and the sizes of the others."""
        self.store.single, self.store.many = 0, []
        self._count += count
        self.processor.process("in", made(range(self._count - count, self._count)))
        return self.store.single, self.store.many

    def commit(self) -> None:
        """Everything is applied, and nothing is cached."""
        self.store.apply(self.table.take_writes(), b"position")
        self.table.trim(0)


def made(numbers: Sequence[int]) -> list[MemoryRecord]:
    return [record for n in numbers for record in records(n, start=n, key=b"k%d" % n)]


def test_rows_are_read_together_once_single_reads_were_seen() -> None:
    """Reads of many rows at once cost less than reads of single rows."""
    rig = Prefetched()
    assert rig.batch() == (LEAST_RECORDS, [])
    assert rig.batch() == (0, [LEAST_RECORDS])
    assert rig.batch() == (0, [LEAST_RECORDS])


def test_a_handler_that_reads_other_keys_costs_one_batch_in_many() -> None:
    """Rows that no handler reads are read in vain."""
    rig = Prefetched(other=True)
    batches = [rig.batch() for _ in range(PAUSE_BATCHES + 4)]
    assert [number for number, (_, many) in enumerate(batches) if many] == [1, PAUSE_BATCHES + 3]


def test_rows_that_are_in_memory_are_not_read_again() -> None:
    """A state that fits into the cache costs no reads."""
    rig = Prefetched()
    rig.batch()
    rig._count = 0
    assert rig.batch() == (0, [])
    assert rig.batch() == (LEAST_RECORDS, [])


def test_a_small_batch_reads_its_rows_one_by_one() -> None:
    """Little input means little to gain."""
    rig = Prefetched()
    rig.batch()
    assert rig.batch(LEAST_RECORDS - 1) == (LEAST_RECORDS - 1, [])


def test_a_prefetched_row_has_its_newest_value() -> None:
    """Committed, sealed or open: the handler sees what it wrote last."""
    rig = Prefetched()
    rig.batch()
    rig.commit()
    rig.batch()
    rig.overlay.sealed = rig.table.take_writes()
    rig.table.trim(0)
    rig.batch()
    rig.seen.clear()
    rig.processor.process("in", made(range(3 * LEAST_RECORDS)))
    assert rig.seen == list(range(3 * LEAST_RECORDS))


def test_a_record_whose_key_cannot_be_decoded_fails_in_its_turn() -> None:
    """The rows of the other records are still read together."""
    rig = Prefetched()
    rig.batch()
    batch = made(range(100, 120))
    batch[5:5] = records(7, key=b"\xff")
    rig.store.single, rig.store.many = 0, []
    rig.processor.process("in", batch)
    assert (rig.store.single, rig.store.many) == (0, [20])
    assert rig.processor.rejected.skipped == 1


def test_an_unreadable_state_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reaction is that to a failed read of a handler: restore."""
    rig = Prefetched()
    rig.batch()

    def unreadable(_keys: Sequence[bytes]) -> Any:
        raise CorruptStateError("a block cannot be read")

    monkeypatch.setattr(rig.store, "get_many", unreadable)
    with pytest.raises(CorruptStateError):
        rig.batch()

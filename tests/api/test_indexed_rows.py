"""What the runtime counts of rows with an entry in the index: the bytes of a commit, and rows that become due."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App
from pipeline.api.due_index import DueIndex
from pipeline.api.indexed_rows import IndexedTable, RowPlace
from pipeline.api.table import TaskOverlay
from pipeline.core.event_time import ClockState, EventClock
from pipeline.testing.memory_store import MemoryStores
from tests.support.tables import TASK


class Rig:
    """Rows of text, and what a commit does to them. A row is due at 5."""

    def __init__(self) -> None:
        table: Any = App("rows").table("rows", key=str, value=str)
        self.store, self.overlay = MemoryStores().open(TASK), TaskOverlay()
        self.index = DueIndex(self.store, self.overlay)
        place = RowPlace(
            self.store, self.overlay, self.index, EventClock(["t"], ClockState()), partition=0, rows=b""
        )
        self.rows = IndexedTable(
            table, place, lambda data: (5, data.decode()), lambda _, text: text.encode(), len, wait_ms=0
        )

    def write(self, key: str, text: str, new: int) -> None:
        self.rows.write(self.rows.found(key), text, 5, new)
        self.overlay.undo.clear()

    def commit(self) -> None:
        self.store.apply({**self.rows.take_writes(), **self.index.take_writes()}, b"position")
        self.overlay.written_bytes = 0


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_row_counts_as_a_whole_once_in_a_commit(rig: Rig) -> None:
    """It is written as a whole. Otherwise a few events of full rows would make a huge commit."""
    rig.write("a", "x" * 1000, 1000)
    rig.commit()
    rig.write("a", "x" * 1001, 1)
    first = rig.overlay.written_bytes
    assert first >= 1001
    rig.write("a", "x" * 1002, 1)
    assert rig.overlay.written_bytes == first + 1


def test_a_row_that_a_step_writes_counts_in_the_commit_but_makes_no_room_for_steps(rig: Rig) -> None:
    """Twice as many steps are fired as rows were written by records: steps that count would double in each turn."""
    rig.write("a", "x" * 1000, 1000)
    rig.write("b", "x" * 1000, 1000)
    assert rig.rows.changes == 2
    rig.commit()
    for slot, due_ms, text in rig.rows.due_rows(5):
        rig.rows.settle(slot, text, due_ms + 5)
    assert rig.overlay.written_bytes >= 2000
    assert rig.rows.changes == 0
    rig.write("c", "x", 1)
    assert rig.rows.changes == 1
    rig.commit()
    assert rig.rows.changes == 0

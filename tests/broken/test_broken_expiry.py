"""Broken on purpose: histories and tables with a time-to-live: what is too old, what is hidden, and what is deleted."""

from __future__ import annotations

import pytest

import pipeline.api.expiring_rows
import pipeline.api.history_rows
import pipeline.runtime.restore.upgrade
import pipeline.runtime.row_queries
import pipeline.runtime.task.partition
from tests.support.breaking import Broken, Copy, name_of

HISTORIES = "tests/runtime/expiry/test_histories.py"
TABLES = "tests/runtime/expiry/test_expiring_tables.py"
SHOWN = "tests/runtime/expiry/test_shown_rows.py"
ROW = pipeline.api.expiring_rows.RuntimeExpiringTable

ROWS = [
    Broken(
        "a value that is too old is added",
        pipeline.api.history_rows.TaskHistory.add,
        "if time_ms < rows.closed_ms:",
        "if False:",
        f"{HISTORIES} neither_added",
    ),
    Broken(
        "values that are stored too long are read",
        pipeline.api.history_rows.TaskHistory.between,
        "        from_ms = max(from_ms, rows.closed_ms)\n",
        "",
        f"{HISTORIES} long_ranges",
    ),
    Broken(
        "a value of a failed record stays",
        pipeline.api.history_rows.TaskHistory.add,
        "        bucket.undo.append((bucket, slot, slot[VALUE], slot[DATA], dirty))\n",
        "",
        f"{HISTORIES} failed_record",
    ),
    Broken(
        "only buckets in memory are read",
        pipeline.api.history_rows.TaskHistory._ends_after,
        "self._stored_ends = self._rows.stored_ends()",
        "self._stored_ends = []",
        f"{HISTORIES} added_once_across",
    ),
    Broken(
        "a row is hidden only when it is deleted",
        ROW._alive,
        "if value is ABSENT or value[1] <= self.closed_ms:",
        "if value is ABSENT:",
        f"{TABLES} bounded_steps",
    ),
    Broken(
        "a write has the time of the clock before the record",
        ROW.__setitem__,
        "elif event_ms > now_ms:",
        "elif False:",
        f"{TABLES} hidden_when",
    ),
    Broken(
        "a write has the time of an old record",
        ROW.__setitem__,
        "elif event_ms > now_ms:",
        "else:",
        f"{TABLES} old_event",
    ),
    Broken(
        "the mark of what is over is not committed",
        pipeline.runtime.task.partition.Partition.take_writes,
        "*self.joins.values(), *self.expiring]",
        "*self.joins.values()]",
        f"{TABLES} does_not_return",
    ),
    Broken(
        "a row whose entry was due gets no other one",
        ROW._finish,
        """        slot[INDEXED] = _NONE
        value = slot[VALUE]
""",
        """        value = slot[VALUE]
""",
        f"{TABLES} one_entry",
    ),
    Broken(
        "a row that was written without being read gets a second entry",
        ROW._resolve,
        "slot[INDEXED] = _NONE if data is None else stamps_of(data)[1]",
        "slot[INDEXED] = _NONE",
        f"{TABLES} one_entry",
    ),
    Broken(
        "a deleted row keeps its entry",
        ROW.take_writes,
        """                if indexed_ms:
                    entries.remove(indexed_ms, full_key[skip:])
                    slot[INDEXED] = _NONE
""",
        "",
        f"{TABLES} leaves_no_entry",
    ),
    Broken(
        "entries can be undone by the next record",
        ROW.take_writes,
        "        self._undo.clear()  # no record can take the entries back\n",
        "",
        f"{TABLES} neither_value_nor_time",
    ),
    Broken(
        "deletion falls behind",
        ROW.changes,
        "return len(self._dirty) - self._by_steps",
        "return 0",
        f"{TABLES} as_many_rows",
    ),
    Broken(
        "rows that were over return when the time-to-live is removed",
        pipeline.runtime.restore.upgrade._Rewriting.writes,
        "if stamps[0] <= mark_ms:",
        "if False:",
        f"{TABLES} removed_from_a_table",
    ),
    Broken(
        "a query reads the clock after the row",
        pipeline.runtime.row_queries._read,
        "clock, row = task.store.row(clock_key(begin)), task.store.row(full_key)",
        "row, clock = task.store.row(full_key), task.store.row(clock_key(begin))",
        f"{SHOWN} during_a_query",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever expires would be worth nothing."""
    copied.assert_noticed(broken)

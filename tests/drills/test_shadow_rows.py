"""The input offset at which a row first differs, from the commits of both apps."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, JournalEntry
from pipeline.core.names import TaskId
from pipeline.drills.shadow_comparison import first_offset
from pipeline.ops.history.row_changes import RowChange, RowHistory, StoredValue

_TOPIC = "orders"


def _history(*commits: tuple[int, int, str]) -> RowHistory:
    """Commits of the input offsets from the first number up to the second one, which wrote this value."""
    changes = []
    for seq, (first, end, value) in enumerate(commits, 2):
        entry = Entry(EntryKind.COMMIT, seq, "a", b"", {_TOPIC: end})
        new = StoredValue(value.encode())
        changes.append(RowChange(JournalEntry(entry, seq, seq + 1, NO_CHAIN), None, new, {_TOPIC: first}))
    return RowHistory(TaskId("shop", "main", 0), 0, [0], TaskInputs(0, 1), tuple(changes), len(changes), None)


def _found(live: Sequence[tuple[int, int, str]], shadow: Sequence[tuple[int, int, str]]) -> tuple[int, int]:
    return tuple(first_offset(_history(*live), _history(*shadow), _TOPIC, 0, 100))  # type: ignore[return-value]


def test_commits_at_the_same_positions_give_the_commit_that_differs() -> None:
    """Then the interval is that of one live commit."""
    live = [(0, 10, "1"), (10, 20, "2"), (20, 30, "3")]
    shadow = [(0, 10, "1"), (10, 20, "x"), (20, 30, "y")]
    assert _found(live, shadow) == (10, 19)


def test_larger_commits_of_the_shadow_widen_the_interval() -> None:
    """Within a commit, the value of a row is not known, and the report must not claim more."""
    live = [(0, 10, "1"), (10, 20, "2"), (20, 30, "3"), (30, 40, "4")]
    shadow = [(0, 20, "2"), (20, 40, "x")]
    assert _found(live, shadow) == (20, 39)


def test_a_row_that_only_one_app_wrote_begins_at_that_commit() -> None:
    """The positions before it are equal: neither app had the row."""
    assert _found([(0, 10, "1"), (50, 60, "2")], [(0, 10, "1")]) == (50, 59)
    assert _found([], [(30, 31, "1")]) == (30, 30)


def test_a_row_that_differs_from_its_first_write_begins_there() -> None:
    """The start of the replay is equal, because both begin with the same rows."""
    assert _found([(5, 10, "1")], [(5, 10, "x")]) == (5, 9)

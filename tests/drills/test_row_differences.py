"""Rows of two states: which differ, and how a report names them."""

from __future__ import annotations

from pipeline.api.table import table_prefix
from pipeline.drills.row_differences import RowDifference, different_rows, readable

_TOTALS = table_prefix("totals")


def test_rows_that_are_missing_added_or_changed_are_found_in_order() -> None:
    """A report shows the first ones, so no kind of difference may hide another one."""
    live = [(b"a", b"1"), (b"b", b"2"), (b"d", b"4"), (b"e", b"5")]
    replayed = [(b"a", b"1"), (b"b", b"3"), (b"c", b"9"), (b"e", b"5"), (b"f", b"6")]
    assert list(different_rows(live, replayed)) == [
        RowDifference(b"b", b"2", b"3"),
        RowDifference(b"c", None, b"9"),
        RowDifference(b"d", b"4", None),
        RowDifference(b"f", None, b"6"),
    ]
    assert list(different_rows(live, live)) == []


def test_a_difference_is_named_by_table_key_and_values() -> None:
    """An operator looks for a row by these, and not by its bytes."""
    row = RowDifference(_TOTALS + b"AA", b'{"flights":3}', None)
    assert row.describe(["other", "totals"]) == 'table totals, key AA: live {"flights":3}, replayed no row'
    assert "table with the prefix" in row.describe(["other"])
    assert "ids that drop duplicates" in RowDifference(b"\0x", b"", None).describe(["totals"])


def test_bytes_that_are_not_text_are_shown_as_bytes() -> None:
    """A terminal must not get control characters from a value."""
    assert readable(b"\xff\x00") == r"b'\xff\x00'"
    assert readable(b"a\x1b[2J") == r"'a\x1b[2J'"
    assert readable(b"x" * 500).endswith("x...")


def test_a_null_is_neither_an_absent_row_nor_a_json_null() -> None:
    """A tombstone that one app has sent is an output, and a missing output is another difference."""
    assert readable(None) == "null value"
    assert readable(b"null") == "null"
    assert (
        RowDifference(_TOTALS + b"AA", None, b"null")
        .describe(["totals"])
        .endswith("live no row, replayed null")
    )

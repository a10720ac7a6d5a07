"""Rows of two states: which differ, and how a report names them."""

from __future__ import annotations

from pipeline.api.table import table_prefix
from pipeline.core.inputs import row_prefix
from pipeline.drills.row_differences import (
    Row,
    RowDifference,
    RowKey,
    different_rows,
    readable,
    rows_of,
)

_TOTALS = table_prefix("totals")


def rows(**values: bytes) -> list[Row]:
    return [(RowKey(0, key.encode()), value) for key, value in values.items()]


def test_rows_that_are_missing_added_or_changed_are_found_in_order() -> None:
    """A report shows the first ones, so no kind of difference may hide another one."""
    live = rows(a=b"1", b=b"2", d=b"4", e=b"5")
    replayed = rows(a=b"1", b=b"3", c=b"9", e=b"5", f=b"6")
    assert list(different_rows(live, replayed)) == [
        RowDifference(RowKey(0, b"b"), b"2", b"3"),
        RowDifference(RowKey(0, b"c"), None, b"9"),
        RowDifference(RowKey(0, b"d"), b"4", None),
        RowDifference(RowKey(0, b"f"), None, b"6"),
    ]
    assert list(different_rows(live, live)) == []


def test_states_of_both_formats_are_compared_by_partition_and_key() -> None:
    """A shadow app is a new group, so its journal is of format 2 where the live one may be of format 1."""
    keys = [b"\x01abcx", b"table", b"\xff"]
    first = [(key, b"v") for key in keys]
    second = [(row_prefix(3) + key, b"v") for key in keys]
    assert list(rows_of(first, 1, 3)) == list(rows_of(second, 2, 3))
    several = [(row_prefix(partition) + key, b"v") for partition in (1, 257) for key in keys]
    found = [place for place, _ in rows_of(several, 2, 1)]
    assert found == sorted(found) == [RowKey(partition, key) for partition in (1, 257) for key in keys]


def test_a_difference_is_named_by_table_key_and_values() -> None:
    """An operator looks for a row by these, and not by its bytes."""
    row = RowDifference(RowKey(7, _TOTALS + b"AA"), b'{"flights":3}', None)
    assert row.describe(["other", "totals"]) == 'table totals, key AA: live {"flights":3}, replayed no row'
    assert "table totals, partition 7, key AA: live" in row.describe(["totals"], several=True)
    assert "table with the prefix" in row.describe(["other"])
    assert "ids that drop duplicates" in RowDifference(RowKey(0, b"\0x"), b"", None).describe(["totals"])


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
        RowDifference(RowKey(0, _TOTALS + b"AA"), None, b"null")
        .describe(["totals"])
        .endswith("live no row, replayed null")
    )

"""The row of a history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.histories import add_value, converted_values, count_of, values_in, values_since
from pipeline.errors import CorruptStateError

ITEMS = st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=3)), max_size=12)


@given(items=ITEMS, most=st.integers(1, 12))
def test_values_are_in_order_and_the_oldest_are_removed(items: list[tuple[int, bytes]], most: int) -> None:
    """Values of one time keep the order in which they were added; a row never has more than `most`."""
    data, expected, removed = None, list[tuple[int, bytes]](), 0
    for time_ms, value in items:
        data, now_removed = add_value(data, time_ms, value, most)
        removed += now_removed
        expected = sorted([*expected, (time_ms, value)], key=lambda item: item[0])[-most:]
        assert list(values_in(data)) == expected
        assert count_of(data) == len(expected)
    assert removed == max(0, len(items) - most)


def test_a_lower_limit_removes_several_values_at_once() -> None:
    """`max_values` can be changed."""
    data = None
    for time_ms in range(5):
        data, _ = add_value(data, time_ms, b"x", 5)
    data, removed = add_value(data, 9, b"y", 2)
    assert (list(values_in(data)), removed) == ([(4, b"x"), (9, b"y")], 4)


@given(items=ITEMS, oldest=st.integers(0, 21))
def test_values_since_a_time(items: list[tuple[int, bytes]], oldest: int) -> None:
    """A row without values does not exist."""
    data = None
    for time_ms, value in items:
        data, _ = add_value(data, time_ms, value, 100)
    if data is None:
        return
    kept = [item for item in values_in(data) if item[0] >= oldest]
    found = values_since(data, oldest)
    assert (list(values_in(found)) if found is not None else []) == kept


def test_values_can_be_converted() -> None:
    """An upgrade keeps the times."""
    data, _ = add_value(add_value(None, 1, b"a", 9).data, 2, b"bb", 9)
    assert list(values_in(converted_values(data, lambda value: value * 2))) == [(1, b"aa"), (2, b"bbbb")]


@pytest.mark.parametrize("cut", [1, 3, 7, 15, 20])
def test_a_damaged_row_is_refused(cut: int) -> None:
    """A value that is cut off must not be read as another one."""
    data, _ = add_value(add_value(None, 1, b"a", 9).data, 2, b"bb", 9)
    with pytest.raises(CorruptStateError, match="the row of a history cannot be decoded"):
        list(values_in(data[:-cut]))


def test_the_format_is_fixed() -> None:
    """States and journals have it."""
    data, _ = add_value(None, 258, b"v", 9)
    assert data == b"\0\0\0\1\0\0\0\1\0\0\0\0\0\0\1\2v\0\0\0\1"

"""The rows of tables with a time-to-live."""

from __future__ import annotations

import pytest

from pipeline.core.event_time import ClockState
from pipeline.core.expiry import mark_at, pack_row, plain_schema, row_value, stamps_of
from pipeline.errors import CorruptStateError


def test_the_format_is_fixed() -> None:
    """States and journals have it."""
    data = pack_row(258, 259, b"value")
    assert data == b"\0\0\0\0\0\0\1\2\0\0\0\0\0\0\1\3value"
    assert (stamps_of(data), row_value(data)) == ((258, 259), b"value")
    with pytest.raises(CorruptStateError, match="only 15 bytes long"):
        stamps_of(data[:15])


@pytest.mark.parametrize(("stored", "mark"), [({}, 40), ({"t": 39}, 40), ({"t": 70}, 70)])
def test_the_mark_never_goes_back(stored: dict[str, int], mark: int) -> None:
    """A longer time-to-live would bring rows back that were over."""
    assert mark_at(ClockState(100, {}, stored), "t", 60) == mark


def test_the_fingerprints_of_a_table_differ_only_in_the_beginning() -> None:
    """An earlier release refuses rows with times as those of another key."""
    assert plain_schema("ttl str->json:int") == plain_schema("str->json:int") == "str->json:int"

"""What CSV cells become."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.ops.loading.formats.cells import Numbers, is_number, text_columns, timestamp_ms


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0), ("-17", -17), ("517", 517), ("3.50", 3.5), ("-0.25", -0.25), ("999999999999999", 999999999999999),
    ],
)  # fmt: skip
def test_plain_decimals_become_numbers(cell: str, value: float) -> None:
    """Handlers declare int and float fields and get them without a conversion of their own."""
    found = Numbers(())[cell]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "cell",
    ["", "007", "02134", "-01", "+5", " 5", "5 ", "1e5", "1_000", "1,5", ".5", "5.", "-0", "0x1f", "NaN", "inf",
     "1000000000000000", "0.1234567890123456", "12345678.12345678", "\u0665", "\u00b2", "--1", "1.2.3"],
)  # fmt: skip
def test_what_could_lose_something_as_a_number_stays_text(cell: str) -> None:
    """A zip code, a part number or a 19-digit id read as a number is lost for good."""
    assert Numbers(())[cell] == cell


@given(st.from_regex(r"-?[0-9]{1,17}(\.[0-9]{1,17})?", fullmatch=True))
def test_a_number_keeps_its_value(cell: str) -> None:
    """Whatever passes as a number must be the same decimal after the way through JSON."""
    if is_number(cell):
        assert Decimal(json.dumps(Numbers(())[cell])) == Decimal(cell)


def test_only_the_cells_named_become_null() -> None:
    """NA is a missing value in one file and Namibia in another."""
    assert (Numbers(("NA",))["NA"], Numbers(())["NA"], Numbers(("",))[""]) == (None, "NA", None)


def test_a_column_with_one_cell_that_is_no_number_is_text() -> None:
    """Zip codes must not be text in Boston and numbers in Beverly Hills."""
    rows = [["1", "02134", "x"], ["2", "90210", "3"], ["", "", "NA"], ["short"]]
    assert text_columns(rows, 3, {"NA"}) == (1, 2)
    assert text_columns([["", "NA"]], 2, {"NA"}) == ()


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1_356_998_400_000, 1_356_998_400_000),
        ("1356998400000", 1_356_998_400_000),
        ("2013-01-01T00:00:00Z", 1_356_998_400_000),
        ("2013-01-01T01:00:00+01:00", 1_356_998_400_000),
        ("2013-01-01 00:00:00", 1_356_998_400_000),
        ("2013-01-01", 1_356_998_400_000),
        ("2013-01-01T00:00:00.125Z", 1_356_998_400_125),
    ],
)
def test_times_are_epoch_milliseconds_or_iso_8601_in_utc(value: object, ms: int) -> None:
    """The same file must give the same times on every machine, so no local zone is assumed."""
    assert timestamp_ms(value) == ms


@pytest.mark.parametrize("value", ["", "yesterday", "NA", None, 1.5, True, -1, "1969-12-31", 10**18])
def test_what_is_no_time_is_refused(value: object) -> None:
    """A wrong time would let retention delete the record, or windows misplace it."""
    with pytest.raises(InputError):
        timestamp_ms(value)

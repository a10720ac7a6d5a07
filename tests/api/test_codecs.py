"""Values, their types and their bytes: what comes back is what was given, or it is refused."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.type_schema import is_immutable
from tests.support.codec_case import (
    Box,
    Cancel,
    Color,
    Flight,
    Holder,
    Loose,
    Node,
    Pair,
    Row,
    Trip,
    table_codec,
    topic_codec,
)


class Level(enum.IntEnum):
    HIGH = 3


class Reading(msgspec.Struct, frozen=True):
    celsius: float | None


class Text(str):
    __slots__ = ()


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass
class Cursor:
    at: int


refusals = pytest.raises((TypeError, ValueError, OverflowError))
VALUES: list[tuple[Any, Any]] = [
    (int, -5),
    (int, 2**63 - 1),
    (str, "zürich \x00 \U0001f6eb"),
    (bytes, b"\x00\xff"),
    (bool, False),
    (float, 0.1),
    (dict[str, int], {"a": 1}),
    (list[int], [1, 2]),
    (tuple[str, int], ("a", 1)),
    (Flight, Flight("AA", 3)),
    (Flight | Cancel, Cancel("AA")),
    (Flight | Cancel, Flight("AA")),
    (Point, Point(1, 2)),
    (Box[int], Box(7)),
    (Node, Node(1, Node(2))),
    (Color, Color.RED),
    (Pair, Pair(1, 2)),
    (int | None, 4),
    (Any, {"a": [1, None]}),
]


@pytest.mark.parametrize("name", ["json", "msgpack"])
@pytest.mark.parametrize(("declared", "value"), VALUES, ids=repr)
def test_a_value_of_its_type_comes_back_equal(declared: Any, value: Any, name: str) -> None:
    """What a handler stores is what it reads, now and after any restart."""
    codec = table_codec(declared, name)
    data, admitted = codec.admit(value)
    assert data is not None
    assert (admitted, codec.decode(data), codec.encode(value)) == (value, value, data)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists))
def test_json_keeps_what_it_takes(value: Any) -> None:
    """A silently changed value would be found weeks later, for example in an invoice."""
    try:
        data, admitted = table_codec(Any, "json").admit(value)
    except (TypeError, ValueError):
        return
    assert (admitted, table_codec(Any, "json").decode(data)) == (value, value)


REFUSED: list[tuple[Any, Any]] = [
    (int, "5"),
    (int, True),
    (int, 5.0),
    (int, Level.HIGH),
    (int, None),
    (str, 5),
    (str, b"5"),
    (str, Text("5")),
    (str, Color.RED),
    (str, None),
    (bytes, "5"),
    (bytes, bytearray(b"5")),
    (bool, 1),
    (float, "0.1"),
    (float, True),
    (float, math.nan),
    (float, math.inf),
    (float | None, math.nan),
    (Reading, Reading(math.nan)),
    (Reading, Reading(-math.inf)),
    (list[float | None], [0.5, None, math.nan]),
    (dict[str, Any], {"a": {"b": [math.inf]}}),
    (Any, math.nan),
    (Flight, Cancel("AA")),
    (Flight, {"carrier": "AA"}),
    (Flight, Flight(5)),  # type: ignore[arg-type]
    (Flight, Flight("AA", "3")),  # type: ignore[arg-type]
    (Flight, Flight("AA", True)),
    (Flight, Flight("AA", Decimal(3))),  # type: ignore[arg-type]
    (Flight, Point(1)),
    (Flight, Flight),
    (Flight | Cancel, Loose("x")),
    (Flight | Cancel, Cancel(None)),  # type: ignore[arg-type]
    (Point, Point("1")),  # type: ignore[arg-type]
    (Point, Flight("AA")),
    (Node, Node(1, Node("2"))),  # type: ignore[arg-type]
    (Box[int], Box("7")),
    (list[int], [1, "2"]),
    (list[int], {1: 2}),
    (dict[str, int], {"a": "1"}),
    (tuple[str, int], ("a",)),
    (Color, "blue"),
    (Annotated[int, msgspec.Meta(ge=0)], -1),
    (int | None, "x"),
]


@pytest.mark.parametrize(("declared", "value"), REFUSED, ids=repr)
def test_a_value_of_another_type_is_refused(declared: Any, value: Any) -> None:
    """A bad value belongs to the record that made it, not to the restore that cannot read it a month later."""
    with refusals:
        table_codec(declared).admit(value)
    with refusals:
        table_codec(declared).encode(value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_an_int_that_the_format_cannot_hold_is_refused(value: int) -> None:
    """msgpack ends at 64 bits; JSON has no limit, and keeps it."""
    with refusals:
        table_codec(int, "msgpack").admit(value)
    assert table_codec(int, "json").admit(value)[1] == value


def test_nan_is_kept_by_a_format_that_has_it() -> None:
    """msgpack has NaN, so nothing is lost there."""
    assert math.isnan(table_codec(float, "msgpack").admit(math.nan)[1])


def test_an_int_serves_as_a_float() -> None:
    """Type checkers allow it, so `table[key] = 0` must not fail at run time; what is read is a float."""
    assert table_codec(float).admit(3) == (b"3", 3.0)
    assert type(table_codec(float).admit(3)[1]) is float


def test_the_text_null_inside_a_value_is_not_mistaken_for_nan() -> None:
    """The check for NaN looks at the encoded bytes first."""
    value = {"null": "null", "none": None}
    assert table_codec(dict[str, Any]).admit(value)[1] == value


def test_the_error_names_the_types() -> None:
    """The reader of a stopped task sees what was expected and what came."""
    with pytest.raises(TypeError, match="expected Cancel or Flight, got str"):
        table_codec(Flight | Cancel).admit("AA")
    with pytest.raises(msgspec.ValidationError, match=r"Expected `str`, got `int` - at `\$.carrier`"):
        table_codec(Flight).admit(Flight(5))  # type: ignore[arg-type]


def test_none_is_a_tombstone_where_a_topic_allows_it() -> None:
    """Compacted topics delete by a null value; it must come and go as None."""
    codec = topic_codec(Flight | None)
    assert codec.allows_none
    assert codec.admit(None) == (None, None)
    assert codec.encode(None) is None
    assert codec.decode(None) is None
    assert codec.decode(codec.encode(Flight("AA"))) == Flight("AA")


@pytest.mark.parametrize("declared", [Flight, Flight | Cancel, int, str, bytes, Point, dict[str, int]])
def test_a_null_value_is_refused_where_the_type_has_no_none(declared: Any) -> None:
    """A tombstone in a topic that should have none is poison, not a value."""
    codec = topic_codec(declared)
    assert not codec.allows_none
    with refusals:
        codec.decode(None)
    with refusals:
        codec.encode(None)


def test_none_in_a_table_is_a_value() -> None:
    """A deleted key and a key whose value is None are different things."""
    codec = table_codec(int | None)
    data, admitted = codec.admit(None)
    assert (data, admitted, codec.decode(b"null")) == (b"null", None, None)


def test_a_tombstone_of_bytes_is_not_the_empty_value() -> None:
    """b"" is a value of a raw topic; null is its deletion."""
    codec = topic_codec(bytes | None)
    assert (codec.encode(b""), codec.encode(None)) == (b"", None)
    assert (codec.decode(b""), codec.decode(None)) == (b"", None)


def test_a_union_with_none_still_tells_its_members_apart() -> None:
    """`| None` is taken off the union before the codec is built."""
    codec = topic_codec(Flight | Cancel | None)
    for value in (Flight("AA"), Cancel("AA"), None):
        assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("declared", "immutable"),
    [
        (int, True),
        (str | None, True),
        (tuple[int, ...], True),
        (tuple[int, str], True),
        (frozenset[int], True),
        (Flight, True),
        (Flight | Cancel, True),
        (Point, True),
        (Node, True),
        (Color, True),
        (Box[int], True),
        (Box[Box[int]], True),
        (list[int], False),
        (dict[str, int], False),
        (set[int], False),
        (Any, False),
        (Loose, False),
        (Cursor, False),
        (Holder, False),
        (Row, False),
        (tuple[list[int], ...], False),
        (tuple[int, list[int]], False),
        (Box[list[int]], False),
        (Box[Box[list[int]]], False),
        (Flight | Holder, False),
    ],
    ids=repr,
)
def test_mutability_is_decided_through_all_levels(declared: Any, immutable: bool) -> None:
    """A frozen Struct with a list in it is mutable: sharing it would let a handler change stored state."""
    assert is_immutable(declared) is immutable


def test_a_change_after_the_value_was_set_does_not_reach_it() -> None:
    """The caller may continue to use the object that it passed."""
    given_value = {"a": [1]}
    data, admitted = table_codec(dict[str, list[int]]).admit(given_value)
    given_value["a"].append(2)
    assert (data, admitted) == (b'{"a":[1]}', {"a": [1]})


def test_a_list_in_the_place_of_a_tuple_is_encoded_at_each_set() -> None:
    """It passes the check as a tuple and can change all the same: the second set must not give the first bytes."""
    codec, legs = table_codec(Trip), ["JFK"]
    trip = Trip(legs)  # type: ignore[arg-type]
    assert codec.admit(trip) == (b'{"legs":["JFK"]}', Trip(("JFK",)))
    legs.append("LAX")
    assert codec.admit(trip) == (b'{"legs":["JFK","LAX"]}', Trip(("JFK", "LAX")))


def test_values_set_and_sent_in_turn_keep_their_own_bytes() -> None:
    """The codec remembers the value it admitted last; two values in turn must not be mixed up."""
    codec = table_codec(Flight)
    one, other = Flight("AA", 1), Flight("UA", 2)
    seen = [codec.admit(value) for value in (one, one, other, one, other, other)]
    assert [admitted for _, admitted in seen] == [one, one, other, one, other, other]
    assert [msgspec.json.decode(data or b"", type=Flight) for data, _ in seen] == [
        one,
        one,
        other,
        one,
        other,
        other,
    ]

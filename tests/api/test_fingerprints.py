"""Fingerprints of types: what changes the stored bytes changes them, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from pipeline.api.type_schema import schema_of
from tests.support.codec_case import (
    Box,
    Cancel,
    Color,
    Flight,
    Holder,
    Node,
    Pair,
    Reversed,
    Row,
    table_codec,
)


def schema(**options: Any) -> Callable[..., str]:
    def of(**annotated: Any) -> str:
        fields = [
            (name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in annotated.items()
        ]
        return schema_of(msgspec.defstruct("S", fields, frozen=True, kw_only=True, **options))

    return of


BEFORE = schema()(flights=(int, 0), minutes=(int, 0))


@pytest.mark.parametrize(
    "after",
    [
        schema()(flights=(int, 0), minutes_late=(int, 0)),
        schema()(flights=(int, 0)),
        schema()(flights=(int, 0), minutes=(str, "")),
        schema()(flights=(int, 0), minutes=int),
        schema()(flights=(int, 0), minutes=(int | None, 0)),
        schema(rename="upper")(flights=(int, 0), minutes=(int, 0)),
        schema(array_like=True)(flights=(int, 0), minutes=(int, 0)),
        schema(tag="late")(flights=(int, 0), minutes=(int, 0)),
    ],
    ids=[
        "renamed",
        "removed",
        "retyped",
        "now required",
        "now nullable",
        "renamed on the wire",
        "array",
        "tag",
    ],
)
def test_a_change_that_reads_stored_bytes_differently_changes_the_fingerprint(after: str) -> None:
    """With defaults on all fields a renamed field would read as zero, without an error anywhere."""
    assert after != BEFORE


def test_what_does_not_change_the_bytes_does_not_change_the_fingerprint() -> None:
    """Renaming the class or changing a written-out default is no reason to refuse to start."""
    fields: list[tuple[str, Any, Any]] = [("flights", int, 7), ("minutes", int, 8)]
    assert schema_of(msgspec.defstruct("Other", fields)) == BEFORE


def test_a_default_that_is_left_out_of_the_bytes_is_part_of_the_fingerprint() -> None:
    """With omit_defaults a changed default changes what every stored value without the field reads as."""
    omitting = schema(omit_defaults=True)
    assert omitting(minutes=(int, 0)) != omitting(minutes=(int, 60))
    assert omitting(minutes=(int, 0)) == omitting(minutes=(int, 0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (schema(tag="a", tag_field="kind")(x=int), schema(tag="a", tag_field="type")(x=int)),
        (schema_of(Pair), schema_of(NamedTuple("Pair", [("right", int), ("left", int)]))),
        (schema_of(Pair), schema_of(NamedTuple("Pair", [("left", int), ("right", str)]))),
        (schema_of(Row), schema_of(TypedDict("Row", {"title": str}))),  # type: ignore[operator]
        (schema_of(Box[int]), schema_of(Box[str])),
        (schema_of(Box[Box[int]]), schema_of(Box[Box[str]])),
        (schema_of(list[int]), schema_of(set[int])),
        (schema_of(dict[str, int]), schema_of(dict[str, str])),
        (schema_of(tuple[int, str]), schema_of(tuple[str, int])),
        (schema_of(Flight | Cancel), schema_of(Flight)),
        (schema_of(Color), schema_of(enum.Enum("Color", {"RED": "blue"}))),
        (schema_of(enum.Enum("E", {"A": 1})), schema_of(enum.Enum("E", {"A": "1"}))),
        (schema_of(Node), schema_of(Holder)),
    ],
    ids=lambda text: str(text)[:40],
)
def test_types_that_do_not_read_each_others_bytes_have_different_fingerprints(one: str, other: str) -> None:
    """Each pair once shared a name, a shape or a container."""
    assert one != other


def test_the_order_of_a_union_does_not_matter() -> None:
    """`A | B` and `B | A` are one type."""
    assert schema_of(Flight | Cancel) == schema_of(Cancel | Flight)


def test_the_codec_is_part_of_the_fingerprint() -> None:
    """JSON bytes read as msgpack are damage."""
    schemas = {table_codec(str, codec).schema for codec in ("json", "msgpack", Reversed())}
    assert len(schemas) == 3

"""Rows from the records of Faust's changelogs, which real tables of Faust have encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count as numbers
from typing import Any

import faust
import pytest

from pipeline.app import declared_app
from pipeline.faust.changelogs import rows_of

_numbers: Iterator[int] = numbers()


class Account(faust.Record):
    name: str
    cents: int


def _declared(make: Any) -> tuple[Any, Any]:
    """A table of Faust, and the same table as the engine declares it."""
    app = faust.App(f"changelogs-{next(_numbers)}")
    source = app.topic("source")

    @app.agent(source)
    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    table = make(app)
    return table, declared_app(app).faust_tables[table]  # type: ignore[attr-defined]


def _record(table: Any, key: Any, value: Any, *, deleted: bool = False) -> tuple[bytes | None, bytes | None]:
    """A record of the changelog, encoded by Faust as its own topic does it."""
    schema, app = table.changelog_topic.schema, table.app
    data, _ = schema.dumps_key(app, key, serializer=table.key_serializer, headers={})
    if deleted:
        return data, None
    stored, _ = schema.dumps_value(app, value, serializer=table.value_serializer, headers={})
    return data, stored


def _rows(declared: Any, *records: tuple[bytes | None, bytes | None]) -> Mapping[Any, Any]:
    found = rows_of(declared)
    for key, value in records:
        found.apply(key, value)
    return {declared.decode_key(key): declared.decode_value(value) for key, value in found.rows().items()}


@pytest.mark.parametrize(
    ("types", "key", "value"),
    [
        ({}, "ann", 3),
        ({}, ["a", 1], {"x": [1.5, None]}),
        ({"key_type": str, "value_type": int}, "änn", 3),
        ({"key_type": int, "value_type": float}, 7, 2.5),
        ({"key_type": bytes, "value_type": bytes}, b"\x00k", b"\xff"),
        ({"key_type": str, "value_type": Account}, "ann", Account("Ann", 3)),
        ({"key_type": Account, "value_type": str}, Account("Ann", 3), "x"),
    ],
)
def test_a_row_has_the_bytes_of_the_changelog(types: Mapping[str, Any], key: Any, value: Any) -> None:
    """An agent finds the row under the same key, and reads the same value."""
    table, declared = _declared(lambda app: app.Table("rows", **types))
    found = rows_of(declared)
    record = _record(table, key, value)
    found.apply(*record)
    assert found.rows() == {record[0]: record[1]}
    assert found.rows() == {declared.encode_key(key): declared.encode_value(value)}


def test_the_last_record_of_a_key_counts_and_a_null_deletes() -> None:
    """A changelog is not always compacted."""
    table, declared = _declared(lambda app: app.Table("rows", value_type=int))
    records = [
        _record(table, "a", 1),
        _record(table, "b", 2),
        _record(table, "a", 3),
        _record(table, "b", None, deleted=True),
        _record(table, "c", None, deleted=True),
    ]
    assert _rows(declared, *records) == {"a": 3}


def test_a_key_that_another_json_library_has_written_is_found() -> None:
    """One escapes characters that are not ASCII, and another one does not: the bytes of the key differ."""
    _, declared = _declared(lambda app: app.Table("rows", value_type=int))
    for written in ('"ä"'.encode(), b'"\\u00e4"'):
        found = rows_of(declared)
        found.apply(written, b"1")
        assert list(found.rows()) == [declared.encode_key("ä")]


def test_the_operations_of_a_set_table_are_applied_in_order() -> None:
    """Faust writes what was added and removed, and not the set."""
    table, declared = _declared(lambda app: app.SetTable("tags", key_type=str))
    records = [
        _record(table, (1, "a"), "x"),
        _record(table, (1, "a"), "y"),
        _record(table, (2, "a"), "x"),
        _record(table, (15, "a"), [{"p", "q"}, {"y"}]),
        _record(table, (1, "b"), "z"),
        _record(table, (2, "b"), "z"),
    ]
    assert _rows(declared, *records) == {"a": {"p", "q"}, "b": set()}


def test_the_rows_of_a_set_table_are_those_that_the_engine_writes() -> None:
    """Otherwise an unchanged set would be written again, with other bytes."""
    table, declared = _declared(lambda app: app.SetTable("tags", key_type=str, value_type=int))
    found = rows_of(declared)
    for element in (3, 1, 2):
        found.apply(*_record(table, (1, "a"), element))
    assert found.rows() == {declared.encode_key("a"): declared.encode_set({1, 2, 3})}


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, b"1"), (b"not json", b"1"), (b'"a"', b"not json")],
)
def test_a_record_that_is_no_row_is_refused(key: bytes | None, value: bytes) -> None:
    """It would stop an agent later, when Faust is gone."""
    _, declared = _declared(lambda app: app.Table("rows", value_type=int))
    with pytest.raises(Exception, match=r".+"):
        rows_of(declared).apply(key, value)


@pytest.mark.parametrize(
    ("key", "value"), [(b'"a"', b"1"), (b'[9, "a"]', b"1"), (b'[1, "a"]', None), (b'[15, "a"]', b"1")]
)
def test_a_record_that_is_no_operation_of_a_set_is_refused(key: bytes, value: bytes | None) -> None:
    """An operation that is not known cannot be left out."""
    _, declared = _declared(lambda app: app.SetTable("tags", key_type=str))
    with pytest.raises((TypeError, ValueError)):
        rows_of(declared).apply(key, value)

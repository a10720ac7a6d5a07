"""The rows of a table in one state, and the table that an argument names: for `show` and `history`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.keys import parse_key
from pipeline.api.table import ReadableStore, table_prefix
from pipeline.core.position import decode_position
from pipeline.errors import ConfigError, InputError
from pipeline.ops.history.row_changes import StoredValue
from pipeline.runtime.restore.upgrade import decoder_of

__all__ = ["find_table", "full_key_of", "json_text", "readable_value", "rows_of"]


class _State(ReadableStore, Protocol):
    def position(self) -> bytes | None: ...


def find_table(app: DeclaredApp, name: str) -> DeclaredTable[Any, Any]:
    """The table with this name, or GROUP.TABLE. Raises InputError."""
    group_name, _, table_name = name.rpartition(".")
    found = [
        definition
        for group in app.groups
        for definition in group.tables.values()
        if definition.name == table_name and group_name in {"", definition.group}
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{d.group}.{d.name}" for group in app.groups for d in group.tables.values())
    what = "several groups have a table" if found else f"app {app.name} has no table"
    raise InputError(f"{what} {name}", hint=f"its tables: {known or 'none'}")


def full_key_of(definition: DeclaredTable[Any, Any], key: str) -> bytes:
    """The key as states and journals have it. Raises InputError if the text is not a key of this table."""
    return table_prefix(definition.name) + (definition.key.encode(parse_key(definition.key, key)) or b"")


def rows_of(
    definition: DeclaredTable[Any, Any], state: _State, where: str, key: str | None
) -> Iterator[tuple[Any, Any]]:
    """The keys and values of a table in a state, or the row of `key`.

    Raises ConfigError if another schema wrote it.
    """
    prefix = table_prefix(definition.name)
    data = state.position()
    if data is not None:
        _check_schema(definition, decode_position(data, where).identity.tables)
    if key is None:
        for full_key, value in state.scan(prefix):
            yield definition.key.decode(full_key[len(prefix) :]), definition.value.decode(value)
        return
    wanted = full_key_of(definition, key)
    value_data = state.get(wanted)
    if value_data is not None:
        yield definition.key.decode(wanted[len(prefix) :]), definition.value.decode(value_data)


def _check_schema(definition: DeclaredTable[Any, Any], stored: dict[str, str]) -> None:
    fingerprint = stored.get(definition.name)
    if fingerprint is not None and fingerprint != definition.fingerprint:
        raise ConfigError(
            f"table {definition.name} was written with another schema:\n  was {fingerprint}"
            f"\n  now {definition.fingerprint}",
            hint="show it with the version of the app that wrote it",
        )


def readable_value(definition: DeclaredTable[Any, Any], stored: StoredValue) -> Any:
    """A value of any time. One of an earlier type is decoded without its type; None if there was no row."""
    if stored.data is None:
        return None
    if stored.schema is None or stored.schema == definition.fingerprint:
        return definition.value.decode(stored.data)
    return decoder_of(definition, stored.schema)(stored.data)


def json_text(value: Any) -> str:
    """The value as one line of JSON."""
    return msgspec.json.encode(value).decode()

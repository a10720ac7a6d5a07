"""The rows of a table in one state, now or as they were, and the changes of a row: for `show` and `history`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.histories import DeclaredHistory
from pipeline.api.keys import parse_key
from pipeline.api.shown import represented
from pipeline.api.table import ReadableStore, table_prefix
from pipeline.api.windows import END_BYTES, AlignedWindow, DeclaredWindow
from pipeline.cli.lookup import journaled_tasks
from pipeline.cli.options import print_json, print_message
from pipeline.cli.past import PastPlace, moment_of, reach_of, restored, say_origin
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.core.entry_body import identity_partitions, row_prefixes
from pipeline.core.event_time import clock_key, unpack_state
from pipeline.core.expiry import EXPIRING_SCHEMA, row_value
from pipeline.core.names import GroupId, TaskChoice, TaskId
from pipeline.core.position import decode_position
from pipeline.core.records import iso_time
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, InputError
from pipeline.ops.history.row_changes import RowChange, RowHistory, StoredValue, row_histories
from pipeline.ports import task_fields
from pipeline.runtime.restore.upgrade import decoder_of

__all__ = [
    "TableRow",
    "find_table",
    "full_key_of",
    "json_text",
    "past_rows",
    "print_history",
    "readable_value",
    "rows_of",
]


class TableRow(NamedTuple):
    """A row. `where`: the numbers of its task and partition. `several`: its task has several partitions."""

    where: dict[str, Any]
    key: Any
    value: Any
    several: bool


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
    sides = [
        f"{side.group}.{side.name}"
        for group in app.groups
        for join in group.joins.values()
        for side in join.sides
        if join.name == table_name and group_name in {"", group.name}
    ]
    if sides:
        raise InputError(
            f"join {table_name} has a table for each side", hint=f"show one of them: {' or '.join(sides)}"
        )
    known = ", ".join(f"{d.group}.{d.name}" for group in app.groups for d in group.tables.values())
    what = "several groups have a table" if found else f"app {app.name} has no table"
    raise InputError(f"{what} {name}", hint=f"its tables: {known or 'none'}")


def full_key_of(definition: DeclaredTable[Any, Any], key: str) -> bytes:
    """The key as states and journals have it. Raises InputError if the text is not a key of this table."""
    return table_prefix(definition.name) + (definition.key.encode(definition.parse_key(key)) or b"")


def rows_of(
    definition: DeclaredTable[Any, Any], state: _State, task: TaskId, key: str | None
) -> Iterator[TableRow]:
    """The rows of a table in the state of a task, or those of `key`; of a window, also those of a key in all windows.

    Of a history, each value is a row; `KEY@TIME` names those of one time. What is over at the clock of the state is
    left out, whether it is deleted or not. Raises ConfigError if another schema wrote it.
    """
    data = state.position()
    if data is None:
        return
    identity = decode_position(data, f"task {task}").identity
    _check_schema(definition, identity.tables)
    partitions = identity_partitions(identity, task.number)
    time_ms: int | None = None
    if isinstance(definition, DeclaredWindow | DeclaredHistory) and key is not None:
        with suppress(InputError):  # a key may contain an @, too
            time_ms = definition.parse_place(key)[1]
            key = key.rpartition("@")[0]
    for partition, begin in zip(partitions, row_prefixes(identity, task.number), strict=True):
        prefix = begin + table_prefix(definition.name)
        if key is None:
            found = state.scan(prefix)
        elif isinstance(definition, AlignedWindow | DeclaredHistory):
            found = _of_key(state, prefix, definition, key)
        else:
            wanted = begin + full_key_of(definition, key)
            stored = state.get(wanted)
            found = iter(() if stored is None else ((wanted, stored),))
        clock = unpack_state(state.get(clock_key(begin)) if definition.fades else None, f"task {task}")
        for full_key, data in found:
            visible = definition.visible(data, clock)
            if visible is None:
                continue
            where = {"task": task.number, "partition": partition}
            for row_key, value in definition.shown(full_key[len(prefix) :], visible):
                if time_ms is None or row_key[1] == time_ms:  # of a WindowKey or a HistoryKey
                    yield TableRow(where, row_key, value, len(partitions) > 1)


def _of_key(
    state: _State, prefix: bytes, definition: DeclaredTable[Any, Any], key: str
) -> Iterator[tuple[bytes, bytes]]:
    """The stored rows of a key, whatever their ends are."""
    codec = definition.key_codec
    suffix = codec.encode(parse_key(codec, key)) or b""
    return (row for row in state.scan(prefix) if row[0][len(prefix) + END_BYTES :] == suffix)


def _check_schema(definition: DeclaredTable[Any, Any], stored: dict[str, str]) -> None:
    fingerprint = stored.get(definition.name)
    if fingerprint is not None and fingerprint != definition.fingerprint:
        raise ConfigError(
            f"{definition.label} was written with another schema:\n  was {fingerprint}"
            f"\n  now {definition.fingerprint}",
            hint="show it with the version of the app that wrote it",
        )


def readable_value(definition: DeclaredTable[Any, Any], stored: StoredValue) -> Any:
    """A value of any time. One of an earlier type is decoded without its type; None if there was no row."""
    if stored.data is None:
        return None
    if stored.schema is None or stored.schema == definition.fingerprint:
        return definition.decoded_by(stored.data, definition.value_codec.decode)
    decode, data = decoder_of(definition, stored.schema), stored.data
    if isinstance(definition, DeclaredHistory):
        return definition.decoded_by(data, decode)
    return decode(row_value(data) if stored.schema.startswith(EXPIRING_SCHEMA) else data)


def json_text(value: Any) -> str:
    """The value as one line of JSON."""
    return msgspec.json.encode(value, enc_hook=represented).decode()


def past_rows(
    place: PastPlace, definition: DeclaredTable[Any, Any], at: str, chosen: TaskChoice | None, key: str | None
) -> Iterator[TableRow]:
    """The rows of a table as they were, task by task. The source of each state is printed on standard error.

    Raises:
        InputError: There is no such task or entry, or it is too old.
    """
    moment = moment_of(at, chosen)
    group = GroupId(place.app.name, definition.group)
    for task in journaled_tasks(place.environment.cluster, group, chosen):
        with restored(task, moment, place.environment) as past:
            say_origin(task, past)
            for row in rows_of(definition, past.store, task, key):
                yield row._replace(where={**row.where, "seq": past.applied.seq})


def print_history(
    place: PastPlace,
    definition: DeclaredTable[Any, Any],
    name: str,
    key: str,
    chosen: TaskChoice | None,
    limit: int,
    *,
    json: bool,
) -> None:
    """Print the changes of a row, task by task, oldest first.

    Raises:
        InputError: No task has a change of this row.
    """
    group = GroupId(place.app.name, definition.group)
    full_key = full_key_of(definition, key)
    tasks = journaled_tasks(place.environment.cluster, group, chosen)
    histories = [
        found
        for task in tasks
        for found in row_histories(task, definition.name, full_key, place.environment, limit or None)
    ]
    if not any(found.changes for found in histories):
        raise InputError(
            f"no journal entry changed key {key!r} of {definition.label}",
            hint=f"show some keys: pipeline table show {name} --app {place.target} --max 5",
        )
    if json:
        for found in histories:
            for change in found.changes:
                print_json(_document(definition, found, change, key))
    else:
        several = any(len(found.partitions) > 1 for found in histories)
        columns = [column for column in _COLUMNS if several or column.title != "partition"]
        cells = (_cells(definition, found, c) for found in histories for c in found.changes)
        print_table(columns, (row if several else [row[0], *row[2:]] for row in cells))
    for found in histories:
        _say_older(place, name, key, found)


def _say_older(place: PastPlace, name: str, key: str, found: RowHistory) -> None:
    """Print which older changes exist, or that they are no longer known."""
    if not found.changes:
        return
    where = f"task {found.task.number}"
    if len(found.partitions) > 1:
        where += f", partition {found.partition}"
    left_out = found.total - len(found.changes)
    if left_out:
        print_message(f"{where}: {counted(left_out, 'older change')} not shown. Show all: --max 0")
    if not found.complete and found.first is not None:
        seq = found.first.entry.seq
        print_message(
            f"{where}: older changes are not in the journal; {reach_of(found.first)}. The value then: "
            f"pipeline table show {name} {key} --app {place.target} --task {found.task.number} --at {seq}"
        )


_COLUMNS = (
    Column("task", number=True),
    Column("partition", number=True),
    Column("seq", number=True),
    Column("time"),
    Column("worker", shortens=True),
    Column("inputs"),
    Column("old", shortens=True),
    Column("new", shortens=True),
)


def _cells(definition: DeclaredTable[Any, Any], found: RowHistory, change: RowChange) -> list[Cell]:
    entry = change.entry.entry
    inputs = ", ".join(f"{topic} {a:,}-{b - 1:,}" for topic, (a, b) in found.moved(change).items())
    if change.before is None:
        inputs = "?"  # the entry with the positions before it is no longer in the journal
    return [
        *(found.task.number, found.partition, entry.seq, iso_time(entry.wall_ms), entry.owner),
        inputs or entry.kind.name.lower(),
        _text(definition, change.old),
        _text(definition, change.new),
    ]


def _text(definition: DeclaredTable[Any, Any], stored: StoredValue | None) -> str:
    """The value as JSON. A dash: there was no row; a question mark: unknown."""
    if stored is None:
        return "?"
    return "-" if stored.data is None else json_text(readable_value(definition, stored))


def _document(
    definition: DeclaredTable[Any, Any], found: RowHistory, change: RowChange, key: str
) -> dict[str, Any]:
    entry = change.entry.entry
    return {
        **task_fields(found.task, found.partitions),
        "partition": found.partition,
        "key": key,
        "seq": entry.seq,
        "offset": change.entry.offset,
        "kind": entry.kind.name.lower(),
        "timestamp_ms": entry.wall_ms,
        "worker": entry.owner,
        "old_known": change.old is not None,
        "old": readable_value(definition, change.old) if change.old is not None else None,
        "new": readable_value(definition, change.new),
        "inputs": {topic: {"first": a, "last": b - 1} for topic, (a, b) in found.moved(change).items()},
        "positions": found.inputs.shown(entry.positions),
    }

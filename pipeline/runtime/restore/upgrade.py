"""Upgrades the rows of tables whose type has changed, with the user's functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.api.declarations import DeclaredTable
from pipeline.api.table import table_prefix
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError
from pipeline.ports import Store, task_fields
from pipeline.runtime.environment import Environment

__all__ = ["MAX_BYTES", "decoder_of", "upgraded_rows"]

# All rows of a task are one journal entry, in memory and in one transaction.
MAX_BYTES = 1024 * 1024 * 1024


def upgraded_rows(
    task: TaskId,
    store: Store,
    tables: Sequence[DeclaredTable[Any, Any]],
    before: dict[str, str],
    partitions: Sequence[bytes],
    environment: Environment,
) -> dict[bytes, bytes | None]:
    """The new value by full key for each row of `tables`. `before`: the fingerprints with which the rows were written.
    `partitions`: the beginnings of the keys of each partition's rows.

    Nothing is written here. The acquire entry contains the result, so a crash leaves all rows old or all rows new.
    Raises ConfigError if a row cannot be upgraded.
    """
    delta: dict[bytes, bytes | None] = {}
    size = 0
    for table in tables:
        began, rows = environment.clock.monotonic_s(), 0
        decode = decoder_of(table, before[table.name])
        prefixes = [begin + table_prefix(table.name) for begin in partitions]
        for prefix, (key, data) in ((each, row) for each in prefixes for row in store.scan(each)):
            value = _upgraded(task, table, table.key.decode(key[len(prefix) :]), decode, data)
            delta[key] = value
            rows += 1
            size += len(key) + len(value)
            if size > MAX_BYTES:
                raise ConfigError(
                    f"task {task}: the rows to upgrade exceed {MAX_BYTES >> 20:,} MiB, which one entry cannot carry",
                    hint="write to a new table beside the old one, or start over with `pipeline reset`, which deletes "
                    "the rows of the group's tables and processes its input again",
                )
        seconds = round(environment.clock.monotonic_s() - began, 3)
        environment.log.info(
            "table_upgraded", **task_fields(task), table=table.name, rows=rows, duration_s=seconds
        )
    return delta


def _upgraded(
    task: TaskId, table: DeclaredTable[Any, Any], key: Any, decode: Callable[[bytes], Any], data: bytes
) -> bytes:
    if table.upgrade is None:
        raise ConfigError(f"task {task}: table {table.name} has no upgrade function")
    upgrade, encode = table.upgrade, table.value_codec.encode
    try:
        return table.converted(data, lambda value: encode(upgrade(decode(value))) or b"")
    except Exception as error:
        raise ConfigError(
            f"task {task}: the upgrade of table {table.name} failed at key {key!r}: {type(error).__name__}: {error}\n"
            f"  the old value is {data[:200]!r}",
            hint="fix the upgrade function and start the worker again; no row was changed",
        ) from error


def decoder_of(table: DeclaredTable[Any, Any], fingerprint: str) -> Callable[[bytes], Any]:
    """Decodes values that were written with another type. Returns what their codec makes of them without a type."""
    codec = fingerprint.removeprefix(table.key_fingerprint).partition(":")[0]
    if codec == "json":
        return msgspec.json.decode
    if codec == "msgpack":
        return msgspec.msgpack.decode
    return bytes

"""Rewrites the rows of tables whose type has changed, with the user's functions, or whose time-to-live was added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.api.declarations import DeclaredTable
from pipeline.api.due_index import DUE_BYTES, index_prefix
from pipeline.api.expiring_rows import ExpiringTable
from pipeline.api.table import table_prefix
from pipeline.core.event_time import clock_key, unpack_state
from pipeline.core.expiry import EXPIRING_SCHEMA, mark_at, pack_row, plain_schema, row_value, stamps_of
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
        for begin in partitions:
            rewriting = _Rewriting(task, table, before[table.name], store, begin, environment.clock.wall_ms())
            for key, value in rewriting.writes():
                delta[key] = value
                rows += key.startswith(rewriting.prefix)
                size += len(key) + len(value or b"")
                if size > MAX_BYTES:
                    raise ConfigError(
                        f"task {task}: the rows to rewrite exceed {MAX_BYTES >> 20:,} MiB, which one entry cannot "
                        "carry",
                        hint="write to a new table beside the old one, or start over with `pipeline reset`, which "
                        "deletes the rows of the group's tables and processes its input again. `pipeline migrate` does "
                        "the same under a new name, while the old app runs",
                    )
        seconds = round(environment.clock.monotonic_s() - began, 3)
        environment.log.info(
            "table_upgraded", **task_fields(task), table=table.name, rows=rows, duration_s=seconds
        )
    return delta


class _Rewriting:
    """The rows of one table in one partition. `now_ms`: the wall clock.

    A row without a time-to-live is rewritten with the wall clock as the time of its write, or with the event clock
    if the wall clock of this host is behind it. So no row expires too early. In a group that kept no clock until now,
    no other time is known.
    """

    def __init__(
        self,
        task: TaskId,
        table: DeclaredTable[Any, Any],
        before: str,
        store: Store,
        begin: bytes,
        now_ms: int,
    ) -> None:
        source = table_prefix(table.name)
        self.prefix = begin + source
        self._task = task
        self._table = table
        self._before = before
        self._store = store
        self._clock = unpack_state(store.get(clock_key(begin)), f"task {task}")
        self._now_ms = max(now_ms, self._clock.clock_ms)
        self._index = index_prefix(source, begin)

    def writes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Rows and entries of the index."""
        table, before = self._table, self._before
        had_ttl = before.startswith(EXPIRING_SCHEMA)
        ttl_ms = table.ttl_ms if isinstance(table, ExpiringTable) else None
        changed = plain_schema(before) != plain_schema(table.fingerprint)
        decode = decoder_of(table, before)
        mark_ms = self._mark_ms(ttl_ms) if had_ttl else -1
        if had_ttl and ttl_ms is None:
            yield from ((key, None) for key, _ in self._store.scan(self._index))
        skip = len(self.prefix)
        for key, data in self._store.scan(self.prefix):
            value, stamps = (row_value(data), stamps_of(data)) if had_ttl else (data, (self._now_ms, 0))
            if stamps[0] <= mark_ms:
                yield key, None  # it is hidden. Its entry finds no row
                continue
            if changed:
                value = _upgraded(self._task, table, table.key.decode(key[skip:]), decode, value)
            if ttl_ms is None:
                yield key, value
            elif had_ttl:
                yield key, pack_row(*stamps, value)
            else:
                due_ms = self._now_ms + ttl_ms
                yield key, pack_row(self._now_ms, due_ms, value)
                yield self._index + due_ms.to_bytes(DUE_BYTES, "big") + key[skip:], b""

    def _mark_ms(self, ttl_ms: int | None) -> int:
        """Rows that were written up to this time have expired."""
        clock, name = self._clock, self._table.name
        return clock.closed.get(name, -1) if ttl_ms is None else mark_at(clock, name, ttl_ms)


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
    schema = plain_schema(fingerprint).removeprefix(plain_schema(table.key_fingerprint))
    codec = schema.partition(":")[0]
    if codec == "json":
        return msgspec.json.decode
    if codec == "msgpack":
        return msgspec.msgpack.decode
    return bytes

"""Faust's windowed tables over the rows of the task: `declare_windows`.

Faust stores a windowed table as a plain one with the key `(key, (start, end))`, and its own wrapper, which the user
holds, finds the ranges of a time. All of that stays. Here are the rows, with the bytes of Faust's changelog, their
expiry, and what Faust keeps in memory for `now()`: the newest end of a window in the partition, which is a row.

Windows with `expires` are tables with a time-to-live of `size + expires` after their last write, on the event clock of
the partition. So a row is never removed earlier than Faust would: a window is written before its end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, MutableMapping
from typing import Any

from faust.exceptions import KeyDecodeError

from pipeline.api.codecs import resolve_value
from pipeline.api.declarations import LONGEST_TTL_S, DeclaredTable
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.expiring_rows import ExpiringTable
from pipeline.api.keys import resolve_key
from pipeline.core.expiry import row_value
from pipeline.errors import ConfigError, InputError
from pipeline.faust.committed import CommittedRows
from pipeline.faust.current import running
from pipeline.faust.serializers import decoding, preparing
from pipeline.faust.tables import EngineTable, FaustTable, TableRows, hashable

__all__ = ["KEY_INDEX", "EngineKeyIndex", "EngineWindowTable", "WindowKeys", "declare_windows"]

KEY_INDEX = "-key_index"  # as Faust names the tables
_END = b"end"
_NUMBER = struct.Struct(">d")


class FaustWindows(FaustTable):
    """A windowed table that keeps all windows."""

    def __init__(self, group: str, name: str, table: Any) -> None:
        self._declare(group, name, table)
        try:
            fits = type(self.encode_key(("", (0.0, 1.0)))) is bytes
        except (TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise ConfigError(
                f"table {table.name} has windows and the key serializer {table.key_serializer!r}, which cannot encode "
                "the keys of windows, neither here nor in Faust",
                hint="leave key_type=bytes out: the serializer is then json",
            )
        read, prepare = decoding(None, table.key_serializer, KeyDecodeError), preparing(table.key_type)
        if table.key_type is None:
            prepare = hashable

        def decode_key(data: bytes) -> Any:
            key, (start, end) = read(data)
            return prepare(key), (start, end)

        self.decode_key = decode_key

    def parse_key(self, text: str) -> Any:
        """The bytes of `["key", [start, end]]`. Raises InputError."""
        try:
            key, (start, end) = json.loads(text)
            return self.encode_key((key, (float(start), float(end))))
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f'{text!r} cannot be a key of table {self.name}; write ["KEY", [START, END]]: {error}'
            ) from error


class _Expiring(ExpiringTable[Any, Any]):
    """What windows that expire, and their index of keys, have in common."""

    __slots__ = ()

    decode_value: Callable[[bytes], Any]

    def _expire(self, table: str, window: Any) -> None:
        """Set the time-to-live. Raises ConfigError."""
        ttl_s = float(window.size) + float(window.expires)
        if not 0.001 <= ttl_s <= LONGEST_TTL_S:
            raise ConfigError(
                f"table {table}: size and expires are {ttl_s} seconds together; the longest time is {LONGEST_TTL_S:,}",
                hint="leave expires= out to keep all windows",
            )
        self.ttl_ms = round(ttl_s * 1000)

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> Any:  # noqa: ARG002 - of the raw codec
        return self.decode_value(row_value(data))


class ExpiringWindows(_Expiring, FaustWindows):
    """A windowed table with `expires=`."""

    def __init__(self, group: str, name: str, table: Any) -> None:
        FaustWindows.__init__(self, group, name, table)
        self._expire(table.name, table.window)


class WindowKeys(_Expiring, FaustTable):
    """The index of the keys of a windowed table with `expires=`. A key lasts as long as its last window."""

    def __init__(self, group: str, name: str, table: Any, window: Any) -> None:
        self._declare(group, name, table)
        self._expire(table.name, window)


class WindowRows(TableRows):
    """The rows of a windowed table in the partition of the current event. `newest`: the table of the newest end."""

    def __init__(
        self, declared: FaustTable, name: str, newest: DeclaredTable[bytes, bytes], committed: CommittedRows
    ) -> None:
        super().__init__(declared, name, committed)
        self._newest = newest

    @property
    def newest_end(self) -> float:
        """The newest end of a window that was written in this partition; 0 before the first one."""
        data = self.agent().context.table(self._newest).get(_END)
        return 0.0 if data is None else float(_NUMBER.unpack(data)[0])

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        end = key[1][1]
        if end > self.newest_end:
            self.agent().context.table(self._newest)[_END] = _NUMBER.pack(end)


class EngineWindowTable(EngineTable):
    """A windowed Faust table over `WindowRows`. The user has a wrapper of it, with Faust's own class."""

    _data: WindowRows

    def _relative_now(self, event: Any = None) -> float:
        """The time of `now()` and `relative_to_now()` in an agent: the newest window, as in Faust."""
        if event is None and running() is None:
            return float(super()._relative_now())
        return self._data.newest_end


class EngineKeyIndex(EngineTable):
    """The index of the keys of a windowed table that expires."""

    def __contains__(self, key: object) -> bool:
        """Whether Faust need not write the key: never, so that each write of a window renews it."""
        return False


def declare_windows(
    tables: MutableMapping[Any, FaustTable],
    group: DeclaredGroup,
    name: str,
    table: Any,
    committed: CommittedRows,
) -> None:
    """Declare a windowed table of Faust, and let it use our rows. Raises ConfigError."""
    made = (ExpiringWindows if table.window.expires else FaustWindows)(group.name, name, table)
    where = f"table {group.name}.{name}"
    newest: DeclaredTable[bytes, bytes] = DeclaredTable(
        group.name,
        f"{name}-newest",
        resolve_key(bytes, where, tombstones=False),
        resolve_value(bytes, None, where, tombstones=False),
    )
    tables[table] = made
    group.add_table(newest)
    table.__class__, table._data = EngineWindowTable, WindowRows(made, table.name, newest, committed)  # noqa: SLF001

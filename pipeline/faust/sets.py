"""Faust's SetTable over the rows of the task: a row for each set, a JSON array of its elements in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from faust.tables.sets import ChangeloggedSet, SetTable

from pipeline.api.context import RuntimeContext
from pipeline.errors import ConfigError
from pipeline.faust.committed import CommittedRows
from pipeline.faust.current import running
from pipeline.faust.json_bytes import load_json
from pipeline.faust.serializers import preparing
from pipeline.faust.tables import EngineTable, FaustTable, TableRows

__all__ = ["EngineSetTable", "FaustSets", "SetRows"]


class FaustSets(FaustTable):
    """A SetTable of Faust, as the engine declares it."""

    __slots__ = ()

    def __init__(self, group: str, name: str, table: Any) -> None:
        if table.value_serializer != "json":
            raise ConfigError(
                f"SetTable {table.name} has the serializer {table.value_serializer!r}; only json is carried over",
                hint="leave the serializer out, or store elements that JSON has",
            )
        super().__init__(group, name, table)
        prepare = preparing(table.value_type)
        self.decode_value = lambda data: {prepare(each) for each in load_json(data)}

    def encode_set(self, elements: set[Any]) -> bytes:
        """The value of a row. Equal sets have equal bytes. Raises TypeError for an element that has none."""
        return b"[" + b",".join(sorted(map(self._element, elements))) + b"]"

    def _element(self, element: Any) -> bytes:
        data: bytes | None = self.encode_value(element)
        if data is None:
            raise TypeError(f"table {self.name}: its serializer cannot store {element!r}")
        return data


class _Set(ChangeloggedSet):
    """A set that an agent was given. It is stored at the end of the event, if it has changed."""

    def __init__(self, rows: SetRows, key: Any, stored_key: bytes, data: bytes | None) -> None:
        self.data = set() if data is None else rows.decoded_set(data)
        self.key = key
        self._rows = rows
        self._stored_key = stored_key
        self._stored = data
        self._written = False

    def on_add(self, value: Any) -> None:  # noqa: ARG002 - as Faust calls it
        self._written = True

    def on_discard(self, value: Any) -> None:  # noqa: ARG002 - as Faust calls it
        self._written = True

    def on_change(self, added: Any, removed: Any) -> None:  # noqa: ARG002 - as Faust calls it
        self._written = True

    def on_clear(self) -> None:
        self._written = True

    def write_back(self, context: RuntimeContext) -> None:
        if not self._written:
            return
        data = self._rows.encoded_set(self.data)
        if data != self._stored:
            context.table(self._rows.declared)[self._stored_key] = data
            self._stored = data


class EngineSetTable(EngineTable, SetTable):
    """A Faust SetTable over `SetRows`."""

    def __getitem__(self, key: Any) -> Any:
        return self._data[key]


class SetRows(TableRows):
    """The sets of a table in the partition of the current event."""

    def __init__(self, declared: FaustSets, name: str, committed: CommittedRows) -> None:
        super().__init__(declared, name, committed)
        self._sets = declared

    def __getitem__(self, key: Any) -> Any:
        agent = running()
        stored = self.encoded_key(key)
        if agent is None:
            committed = self._committed.row(self.declared, stored)
            return set() if committed is None else self.decoded_set(committed)
        known: Any = agent.values.get((self, stored))
        if known is None:
            data = agent.context.table(self.declared).get(stored)
            known = agent.values[self, stored] = _Set(self, key, stored, data)
        return known

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise NotImplementedError("SetTable: cannot set key")

    def __delitem__(self, key: Any) -> NoReturn:
        raise NotImplementedError("SetTable: cannot del key")

    def __iter__(self) -> Iterator[Any]:
        for stored, _ in self._pairs():
            yield self.declared.decode_key(stored)

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Keys and sets."""
        for key in self:
            yield key, self[key]

    def decoded_set(self, data: bytes) -> set[Any]:
        found: set[Any] = self.declared.decode_value(data)
        return found

    def encoded_set(self, elements: set[Any]) -> bytes:
        return self._sets.encode_set(elements)

"""Faust's tables over the rows of the task: `TableRows`, the store of a table, and `EngineTable`, its class.

The user's `faust.Table` keeps its identity and its methods; its class becomes `EngineTable`, which reads and writes
rows through `TableRows`. A row belongs to the partition of the event, as in Faust's changelog. Key and value have the
bytes that Faust's changelog has.

A value that an agent can change in place, such as a dict, is remembered while its event lasts: the agent is given the
same object again, and at the end of the event the value is stored if it has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

import msgspec
from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.tables.table import Table

from pipeline.api.codecs import ValueCodec, resolve_value
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTable
from pipeline.api.keys import KeyCodec, resolve_key
from pipeline.errors import InputError
from pipeline.faust.committed import CommittedRows
from pipeline.faust.current import Running, running
from pipeline.faust.json_bytes import JSON_LIBRARY
from pipeline.faust.outputs import outside
from pipeline.faust.serializers import decoding, encoder_of

__all__ = ["EngineTable", "FaustTable", "TableRows", "hashable"]

# Values of these types cannot change in place.
_FIXED = frozenset({bool, bytes, date, datetime, Decimal, float, int, str, type(None), UUID})


class FaustTable(DeclaredTable[Any, Any]):
    """A table of Faust, as the engine declares it: rows of bytes, which commands show decoded."""

    # Without slots: `windows.py` has subclasses of this and of another table.

    def __init__(self, group: str, name: str, table: Any) -> None:
        self._declare(group, name, table)

    def _declare(self, group: str, name: str, table: Any) -> None:
        where = f"table {group}.{name}"
        keys = resolve_key(bytes, where, tombstones=False)
        DeclaredTable.__init__(self, group, name, keys, resolve_value(bytes, None, where, tombstones=False))
        registry = table.app.serializers
        self.encode_key = encoder_of(table.key_type, table.key_serializer, registry.key_serializer)
        self.encode_value = encoder_of(table.value_type, table.value_serializer, registry.value_serializer)
        read_key = decoding(table.key_type, table.key_serializer, KeyDecodeError)
        self.decode_key: Callable[[bytes], Any] = lambda data: hashable(read_key(data))
        self.decode_value: Callable[[bytes], Any] = decoding(
            table.value_type, table.value_serializer, ValueDecodeError
        )
        self._key_type = table.key_type
        self._has_json_keys = table.key_serializer == "json"
        self._serializers = f"{table.key_serializer}, {table.value_serializer}, {JSON_LIBRARY}"

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys that agents use."""
        decode: Any = self.decode_key  # a row has a key
        return KeyCodec(self.encode_key, decode, _no_prefix, False, f"faust({self._serializers})")

    @property
    def value_codec(self) -> ValueCodec[Any]:
        """The codec of the values that agents use."""
        encode, schema = self.encode_value, self.value.schema
        decode: Any = self.decode_value
        return ValueCodec(lambda value: (encode(value), value), encode, decode, False, False, schema)

    @property
    def key_fingerprint(self) -> str:
        """Rows have other bytes with other serializers."""
        return f"faust({self._serializers}) {super().key_fingerprint}"

    def table_rows(self, key: bytes, data: bytes) -> Iterator[tuple[Any, Any]]:
        yield self.decode_key(key), self.decode_value(data)

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> Any:  # noqa: ARG002 - of the raw codec
        return self.decode_value(data)

    def parse_key(self, text: str) -> Any:
        """The bytes of a key from the command line. Raises InputError."""
        try:
            if self._key_type is None and self._has_json_keys and _is_number(text):
                raise InputError(
                    f"{text} can be a number or a text in the keys of table {self.name}, which has no key_type",
                    hint=f"write '\"{text}\"' for the text; for the number, declare key_type=int or key_type=float in "
                    "app.Table, which changes no stored key",
                )
            return self.encode_key(_typed(self._key_type, text))
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{text!r} cannot be a key of table {self.name}: {error}") from error


def _no_prefix(key: Any) -> bytes:
    raise TypeError(f"keys of Faust's tables have no prefixes: {key!r}")


def _is_number(text: str) -> bool:
    """Whether a text is a number of JSON."""
    try:
        return type(msgspec.json.decode(text)) in {int, float}
    except msgspec.DecodeError:
        return False


def _typed(key_type: Any, text: str) -> Any:
    """A key from text: JSON of an array, an object or a string, and otherwise the text itself."""
    if key_type in {int, float}:
        return key_type(text)
    if key_type is bytes:
        return text.encode()
    parsed = json.loads(text) if text[:1] in {"[", "{", '"'} else text
    is_model = isinstance(parsed, dict) and key_type is not None
    return key_type.from_data(parsed) if is_model else parsed


def hashable(key: Any) -> Any:
    """JSON has lists where a key was a tuple."""
    return tuple(map(hashable, key)) if isinstance(key, list) else key


class _Value:
    """A value that can change in place, and its bytes as they are stored."""

    __slots__ = ("data", "key", "rows", "value")

    def __init__(self, rows: TableRows, key: bytes, value: Any, data: bytes) -> None:
        self.rows = rows
        self.key = key
        self.value = value
        self.data = data

    def write_back(self, context: RuntimeContext) -> None:
        data = self.rows.encoded_value(self.value)
        if data != self.data:
            context.table(self.rows.declared)[self.key] = data
            self.data = data


class TableRows(MutableMapping[Any, Any]):
    """The rows of a table in the partition of the current event. `declared`: the table of the engine."""

    def __init__(self, declared: FaustTable, name: str, committed: CommittedRows) -> None:
        self.declared = declared
        self._committed = committed  # what is read outside of agents
        self._name = name
        self._encode_key = declared.encode_key
        self._encode_value = declared.encode_value
        self._decode_key = declared.decode_key
        self._decode_value = declared.decode_value

    def agent(self) -> Running:
        """The agent that runs. Raises ConfigError outside of an event."""
        found = running()
        if found is None:
            raise outside(f"table {self._name} is used")
        return found

    def encoded_key(self, key: Any) -> bytes:
        data = self._encode_key(key)
        if data is None:
            raise TypeError(f"table {self._name}: a key cannot be None")
        return data

    def encoded_value(self, value: Any) -> bytes:
        data = self._encode_value(value)
        if data is None:
            raise TypeError(f"table {self._name}: its serializer cannot store {value!r}")
        return data

    def __getitem__(self, key: Any) -> Any:
        agent = running()
        stored = self.encoded_key(key)
        if agent is None:
            committed = self._committed.row(self.declared, stored)
            if committed is None:
                raise KeyError(key)
            return self._decode_value(committed)
        values = agent.values
        if values:
            known: Any = values.get((self, stored))
            if known is not None:
                return known.value
        data = agent.context.table(self.declared).get(stored)
        if data is None:
            raise KeyError(key)
        value = self._decode_value(data)
        if type(value) not in _FIXED:
            values[self, stored] = _Value(self, stored, value, data)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        agent = self.agent()
        stored, data = self.encoded_key(key), self.encoded_value(value)
        agent.context.table(self.declared)[stored] = data
        if type(value) not in _FIXED:
            agent.values[self, stored] = _Value(self, stored, value, data)
        elif agent.values:
            agent.values.pop((self, stored), None)

    def __delitem__(self, key: Any) -> None:
        agent = self.agent()
        stored = self.encoded_key(key)
        rows = agent.context.table(self.declared)
        if stored not in rows:
            raise KeyError(key)
        del rows[stored]
        agent.values.pop((self, stored), None)

    def __contains__(self, key: object) -> bool:
        agent, stored = running(), self.encoded_key(key)
        if agent is None:
            return self._committed.row(self.declared, stored) is not None
        return stored in agent.context.table(self.declared)

    def __iter__(self) -> Iterator[Any]:
        for key, _ in self._pairs():
            yield self._decode_key(key)

    def __len__(self) -> int:
        return sum(1 for _ in self._pairs())

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values, without a second read of each."""
        agent = running()
        if agent is None:
            for stored, data in self._pairs():
                yield self._decode_key(stored), self._decode_value(data)
            return
        for stored, data in self._pairs():
            known: Any = agent.values.get((self, stored))
            if known is None:
                value = self._decode_value(data)
                if type(value) not in _FIXED:
                    agent.values[self, stored] = known = _Value(self, stored, value, data)
            yield self._decode_key(stored), value if known is None else known.value

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        agent = running()
        if agent is None:
            return self._committed.rows(self.declared)
        return agent.context.table(self.declared).items()


class _Items(ItemsView[Any, Any]):
    def __init__(self, rows: TableRows) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._rows.pairs()


class _Values(ValuesView[Any]):
    def __init__(self, rows: TableRows) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._rows.pairs())


class EngineTable(Table):
    """A Faust table over `TableRows`. A key without a row has the table's default, which is not stored."""

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._data[key]
        except KeyError:
            if self.default is None:
                raise
            return self.default()

    def __setitem__(self, key: Any, value: Any) -> None:
        self._data[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def items(self) -> Any:
        return _Items(self._data)

    def keys(self) -> Any:
        return KeysView(self._data)

    def values(self) -> Any:
        return _Values(self._data)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._data.update(*args, **kwargs)

    def clear(self) -> None:
        self._data.clear()

    def copy(self) -> dict[Any, Any]:
        return dict(self.items())

    def send_changelog(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"table {self.name}: its changes are in the journal, and it has no changelog topic")

    def __repr__(self) -> str:
        return f"<Table: {self.name}>"

"""The events that `take` holds: `HeldEvents`, rows of the state until the agent has got them in a batch.

An event that is held is committed: its position, and in the same commit a row with its record. The step in which the
agent gets a batch deletes the rows of the batch, in the commit that has all that the agent wrote and sent. So at each
point of time an event is in the topic, in a row, or in a result, and in one of them only:

    1. the record arrives: row n of its partition is written, and the number of rows           commit: row + position
    2. the record that completes a batch arrives, or the time is over: the rows are read and deleted, and the agent is
       stepped with all events of the batch                           commit: no rows + effects (+ position)

A crash before a commit undoes its step, and after the restart the same step is done again. If the agent raises, the
step is undone as that of any record is: the rows are there again.

    4 bytes, the place in the batch from 0 -> version 1 | array of msgpack: topic, partition, offset, timestamp and its
                                              type, headers, key, value
    `count` -> number of rows, 4 bytes, big-endian

Places are used again by the next batch, so a commit with many batches has few rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.api.codecs import resolve_value
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTable
from pipeline.api.keys import resolve_key
from pipeline.core.headers import headers_of
from pipeline.core.suggestions import counted
from pipeline.errors import CorruptStateError
from pipeline.ports import Record

__all__ = ["HeldEvents", "HeldRecord"]

_COUNT = b"count"
_NUMBER_BYTES = 4
_VERSION = b"\x01"


class HeldRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`ports.Record`: a record that was held."""

    topic_name: str
    partition_number: int
    offset_number: int
    time: tuple[int, int]  # type and milliseconds, as the Kafka client gives them
    header_list: list[tuple[str, bytes | None]] | None
    key_data: bytes | None
    value_data: bytes | None

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return self.partition_number

    def offset(self) -> int:
        return self.offset_number

    def timestamp(self) -> tuple[int, int]:
        return self.time

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.header_list

    def key(self) -> bytes | None:
        return self.key_data

    def value(self) -> bytes | None:
        return self.value_data


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(HeldRecord)


class HeldEvents(DeclaredTable[bytes, bytes]):
    """The held events of one agent, as a table. The rows are those of the current partition."""

    __slots__ = ()

    def __init__(self, group: str, name: str) -> None:
        where = f"table {group}.{name}"
        keys = resolve_key(bytes, where, tombstones=False)
        super().__init__(group, name, keys, resolve_value(bytes, None, where, tombstones=False))

    def table_rows(self, key: bytes, data: bytes) -> Iterator[tuple[Any, Any]]:
        """For people: the records, without the number of rows."""
        if key != _COUNT:
            yield int.from_bytes(key, "big"), self._unpacked(data)

    def count(self, context: RuntimeContext) -> int:
        """The number of events."""
        data = context.table(self).get(_COUNT)
        return 0 if data is None else int.from_bytes(data, "big")

    def hold(self, context: RuntimeContext, count: int, record: Record) -> None:
        """Add an event. `count`: the number of events."""
        rows = context.table(self)
        held = HeldRecord(
            record.topic(),
            record.partition(),
            record.offset(),
            record.timestamp(),
            list(headers_of(record)) or None,
            record.key(),
            record.value(),
        )
        rows[_number(count)] = _VERSION + _encoder.encode(held)
        rows[_COUNT] = _number(count + 1)

    def taken(self, context: RuntimeContext, count: int) -> list[HeldRecord]:
        """Remove all events. `count`: their number. Raises CorruptStateError."""
        if not count:
            return []
        rows = context.table(self)
        keys = [_number(number) for number in range(count)]
        found = rows.get_many(keys)
        if len(found) != count:
            raise CorruptStateError(
                f"{self.label} has {counted(len(found), 'event')}, and its count is {count}"
            )
        for key in keys:
            del rows[key]
        del rows[_COUNT]
        return [self._unpacked(found[key]) for key in keys]

    def _unpacked(self, data: bytes) -> HeldRecord:
        try:
            if data[:1] != _VERSION:
                raise CorruptStateError(f"an event of {self.label} has an unknown format")
            return _decoder.decode(data[1:])
        except msgspec.DecodeError as error:
            raise CorruptStateError(f"an event of {self.label} cannot be decoded: {error}") from error


def _number(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big")

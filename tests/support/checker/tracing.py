"""The input of an output: from a header that the handlers of tests send, and from dead letters and replays."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from tests.support.checker.log import Record

__all__ = ["Trace", "event_id_of", "letter_of", "made_from", "replay_of", "trace_of"]

_HEADER = "made-from"
_LETTER = "dead-letter-"


class _Place(Protocol):
    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


class Trace(NamedTuple):
    """The input of an output. `group`: in the form `app.group`. `topic_id`: the topic's id, if known."""

    group: str
    topic: str
    partition: int
    offset: int
    topic_id: str = ""

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset} in {self.group}"


def made_from(group: str, event: _Place) -> Sequence[tuple[str, bytes]]:
    """Headers for `ctx.send`. `group`: `app.group` of the handler."""
    return [(_HEADER, f"{group} {event.topic} {event.partition} {event.offset}".encode())]


def trace_of(record: Record) -> Trace | None:
    """The trace in the record's headers. A dead letter has the headers of its input, but is not an output of it."""
    found = None
    for name, value in record.headers:
        if name.startswith(_LETTER):
            return None
        if name == _HEADER:
            found = (value or b"").decode()
    if found is None:
        return None
    group, topic, partition, offset = found.split(" ")
    return Trace(group, topic, int(partition), int(offset))


def letter_of(group: str, record: Record) -> Trace | None:
    """The input of a dead letter in the topic of `group`: by the last block of headers."""
    said: dict[str, str] = {}
    for name, value in record.headers:
        if name.startswith(_LETTER):
            said[name.removeprefix(_LETTER)] = (value or b"").decode(errors="replace")
    if not {"topic", "partition", "offset"} <= said.keys():
        return None
    return Trace(group, said["topic"], int(said["partition"]), int(said["offset"]), said.get("topic-id", ""))


def replay_of(group: str, record: Record) -> Trace | None:
    """The input that a record in the replays topic of `group` replays: version u8 | crc32 u32 | a msgpack map.

    None if the record has another format: its task makes it a dead letter.
    """
    data = record.value or b""
    if data[:1] != b"\x01" or zlib.crc32(data[5:]) != int.from_bytes(data[1:5], "big"):
        return None
    said = msgspec.msgpack.decode(data[5:])
    return Trace(group, said["topic"], said["partition"], said["offset"])


def event_id_of(record: Record) -> bytes | None:
    """The event id, which identifies duplicates."""
    return next((value for name, value in record.headers if name == "event-id"), None)

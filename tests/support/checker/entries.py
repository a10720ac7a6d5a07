"""A decoder of the journal's format, written from its description, not from the package's decoder.

A chunk is a record. An entry is `count` chunks of one seq with adjacent offsets:

    magic "XJ" | version u8 | kind u8 | index u32 | count u32 | seq u64 | chain 16 bytes | crc32 u32 | payload

All numbers are big-endian. The checksum covers chain, index, count and payload. The payloads together are the body, a
msgpack array. The chain of an entry is the 16-byte blake2b of the chain before it (zeros before the first one) and
the body.

In version 2, the positions of a topic are an array: its item i is that of partition t + i * T, where t is the partition
of the journal and T the number of its partitions, which an identity has as its sixth field. A reset that has
`partitions` in its extra discards only these: numbers of two bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from tests.support.checker.log import Record

__all__ = ["KINDS", "CheckpointRef", "Chunks", "DamagedError", "Entry", "chain_after"]

KINDS = {1: "genesis", 2: "acquire", 3: "commit", 4: "checkpoint", 5: "release", 6: "reset", 7: "retire"}
_HEADER_BYTES = 40
_FIELDS = 12


class DamagedError(Exception):
    """A record does not have the documented format."""


class CheckpointRef(NamedTuple):
    """A checkpoint that an entry names, by the last entry that its state has applied."""

    seq: int
    offset: int
    chain: bytes


@dataclass(frozen=True)
class Entry:
    """An entry of the journal. `end`: the offset after its last chunk. `size`: the bytes of its records.

    `topic_ids`: the ids of the inputs, if the entry has them. `replaced`: the inputs that are not the topic of the
    earlier positions. `previous_bytes`: the entry's count of the bytes before it.
    """

    kind: str
    seq: int
    owner: str
    nonce: bytes
    positions: Mapping[
        str, int
    ]  # by topic and, after a slash, by the item in the array unless it is the first
    delta: Mapping[bytes, bytes | None]
    topic_ids: Mapping[str, str] | None
    replaced: frozenset[str]
    checkpoint: int
    previous_bytes: int
    kept: Sequence[CheckpointRef]
    chain: bytes
    body: bytes
    offset: int
    end: int
    size: int
    version: int = 1
    tasks: int | None = None  # of its identity
    reset: frozenset[int] | None = None  # the partitions that a reset discards; None: all


def chain_after(previous: bytes, body: bytes) -> bytes:
    """The chain value of the entry with this body. `previous`: the chain value before it; empty if it is the first."""
    return hashlib.blake2b((previous or bytes(16)) + body, digest_size=16).digest()


class Chunks:
    """Assembles entries from the records of one journal partition."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._head: tuple[int, int, bytes, int, int] | None = None  # kind, seq, chain, count, version
        self._begin = self._next = 0

    @property
    def half(self) -> bool:
        """Whether the last entry is incomplete."""
        return self._head is not None

    def entries(self, records: Sequence[Record]) -> Iterator[Entry]:
        """The entries that end in `records`. Raises DamagedError."""
        for record in records:
            entry = self._add(record)
            if entry is not None:
                yield entry

    def _add(self, record: Record) -> Entry | None:
        data, where = record.value or b"", f"offset {record.offset}"
        if len(data) <= _HEADER_BYTES or data[:2] != b"XJ":
            raise DamagedError(f"{where}: the record is not a chunk of an entry")
        if data[2] not in {1, 2}:
            raise DamagedError(f"{where}: version {data[2]} of the format is unknown")
        index, count, seq = (int.from_bytes(data[a:b], "big") for a, b in ((4, 8), (8, 12), (12, 20)))
        chain, checksum, payload = data[20:36], int.from_bytes(data[36:40], "big"), data[40:]
        if zlib.crc32(chain + data[4:12] + payload) != checksum:
            raise DamagedError(f"{where}: the checksum of chunk {index} of entry {seq} is wrong")
        head = (data[3], seq, chain, count, data[2])
        if index == 0 and self._head is None:
            self._head, self._begin = head, record.offset
        elif head != self._head or index != len(self._parts) or record.offset != self._next:
            raise DamagedError(f"{where}: chunk {index} of entry {seq} does not follow what is before it")
        self._next = record.offset + 1
        self._parts.append(payload)
        if len(self._parts) < count:
            return None
        entry = _decode(head, b"".join(self._parts), self._begin, self._next)
        self._head, self._parts = None, []
        return entry


def _decode(head: tuple[int, int, bytes, int, int], body: bytes, begin: int, end: int) -> Entry:
    kind, seq, chain, count, version = head
    try:
        fields: list[Any] = msgspec.msgpack.decode(body)
    except msgspec.DecodeError as error:
        raise DamagedError(f"offset {begin}: the body of entry {seq} cannot be decoded: {error}") from error
    if len(fields) < _FIELDS or fields[:2] != [kind, seq] or kind not in KINDS:
        raise DamagedError(
            f"offset {begin}: the body of entry {seq} says {fields[:2]}, its chunk {[kind, seq]}"
        )
    _, _, owner, nonce, positions, delta, identity, _, _, extra, checkpoint, previous_bytes = fields[:_FIELDS]
    if version == 2:
        positions = {
            f"{topic}/{item}" if item else topic: at
            for topic, offsets in positions.items()
            for item, at in enumerate(offsets)
        }
    if identity is not None and (len(identity) > 5) != (version == 2):
        raise DamagedError(f"offset {begin}: an identity of {len(identity)} fields in version {version}")
    reset = extra.get("partitions")
    return Entry(
        KINDS[kind],
        seq,
        owner,
        nonce,
        positions,
        delta,
        None if identity is None else {topic: facts[0] for topic, facts in identity[2].items()},
        frozenset(topic for topic, facts in identity[2].items() if facts[3:4] == [True])
        if identity
        else frozenset(),
        checkpoint,
        previous_bytes,
        _kept(extra.get("checkpoints")),
        chain,
        body,
        begin,
        end,
        len(body) + count * _HEADER_BYTES,
        version,
        identity[5] if identity is not None and version == 2 else None,
        frozenset(int.from_bytes(reset[at : at + 2], "big") for at in range(0, len(reset), 2))
        if reset
        else None,
    )


def _kept(data: bytes | None) -> Sequence[CheckpointRef]:
    """Version u8 | msgpack array of arrays, newest first."""
    if not data:
        return ()
    return [CheckpointRef(*ref[:3]) for ref in msgspec.msgpack.decode(data[1:])]

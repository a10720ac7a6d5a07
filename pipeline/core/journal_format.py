"""The journal's format: entries, their hash chain, and the chunks they travel in. Pure.

An entry is one step of a task's history. Its body is msgpack. Its chain value is blake2b(previous chain value + body),
so two histories that differ at one entry differ in every later chain value. In Kafka, an entry is one or more chunks.
Each chunk is a record below the broker's size limit. All are in one transaction and one partition, so a reader of
committed records sees them without other records between them:

    magic "XJ" | version u8 | kind u8 | index u32 | count u32 | seq u64 | chain 16 bytes | crc32 u32 | payload

(`core/envelope.py`). The checksum covers chain, index, count and payload; kind and seq are also in the body. All
fields are validated when they are written and when they are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.core.dead_letter_count import LetterCount
from pipeline.core.envelope import BinaryEnvelope, EnvelopeError, Fault
from pipeline.errors import FatalTaskError, InvariantError

__all__ = [
    "CHAIN_SIZE",
    "NO_CHAIN",
    "Entry",
    "EntryKind",
    "Identity",
    "InputFacts",
    "JournalEntry",
    "assemble",
    "begins_entry",
    "chain_after",
    "encode_entry",
    "make_journal_entry",
]

CHAIN_SIZE = 16
NO_CHAIN = bytes(CHAIN_SIZE)

_FIELDS = struct.Struct(">BIIQ16s")


def _covered(fields: bytes) -> bytes:
    """Chain, index and count."""
    return fields[17:] + fields[1:9]


_ENVELOPE = BinaryEnvelope(version=1, magic=b"XJ", fields=_FIELDS.size, covered=_covered)
_FAULTS = {
    Fault.FOREIGN: "a record of {size} bytes is not a journal chunk",
    Fault.VERSION: f"format version {{version}} is unknown to this release (it knows {_ENVELOPE.version})",
    Fault.CHECKSUM: "the checksum of chunk {index} of entry {seq} is wrong",
}


class EntryKind(IntEnum):
    """The kind of an entry. An entry of any kind has a seq and is applied.

    RESET discards everything before it: the state is empty, and the positions are those of the entry. RETIRE ends the
    app: no worker continues after it, not even one of a release that does not know this kind.
    """

    GENESIS = 1
    ACQUIRE = 2
    COMMIT = 3
    CHECKPOINT = 4
    RELEASE = 5
    RESET = 6
    RETIRE = 7


class InputFacts(msgspec.Struct, frozen=True, array_like=True):
    """An input topic as it was when the task was acquired. `topic_id` identifies a recreated topic.

    Two fields are for the replays topic, which may be missing. `absent`: it did not exist for this owner; the other
    fields are those that an earlier owner found. `replaced`: earlier positions belong to another topic of this name.
    """

    topic_id: str
    partitions: int
    absent: bool = False
    replaced: bool = False


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """The cluster, topics and schemas of a task's history, in genesis and acquire entries and in the applied position.

    `inputs`: by topic name. `tables`: schema fingerprint by table name. `topology`: a fingerprint of the input topics
    of the handlers.
    """

    cluster_id: str
    partitioner: str
    inputs: dict[str, InputFacts]
    tables: dict[str, str]
    topology: str


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry's body.

    `positions`: the next input offset to read, by topic (the partition is that of the task). `delta`: the new value by
    full key, None for a delete. Values are absolute, so applying an entry twice is harmless. `wall_ms`: the time at
    which the entry was built, before its transaction. `stream_time_ms`: reserved for windows. `nonce`: unique to the
    process and the attempt. `checkpoint`: the offset of the last CHECKPOINT entry before this one; -1 if there is none.
    So that entry can be found from the last entry of a journal. `journal_bytes`: the bytes of all entries before this
    one. `letters`: the dead letters written so far, including those of this commit; None in entries of earlier
    releases.
    """

    kind: EntryKind
    seq: int
    owner: str
    nonce: bytes
    positions: dict[str, int]
    delta: dict[bytes, bytes | None] = {}
    identity: Identity | None = None
    wall_ms: int = 0
    stream_time_ms: int = -1
    extra: dict[str, bytes] = {}
    checkpoint: int = -1
    journal_bytes: int = 0
    letters: LetterCount | None = None

    def offsets_since(self, before: Entry) -> int:
        """The input offsets after an earlier entry. A topic that `before` does not have, or that was reset, adds 0."""
        earlier = before.positions
        return sum(max(0, at - earlier.get(topic, at)) for topic, at in self.positions.items())


class JournalEntry(NamedTuple):
    """An entry in a journal: first chunk's `offset`, `next_offset` after the last, chain value, bytes."""

    entry: Entry
    offset: int
    next_offset: int
    chain: bytes
    size: int = 0

    @property
    def checkpoint(self) -> int:
        """The offset of the last CHECKPOINT entry up to this one; -1 if there is none."""
        return self.offset if self.entry.kind is EntryKind.CHECKPOINT else self.entry.checkpoint

    @property
    def journal_bytes(self) -> int:
        """The bytes of all entries up to this one."""
        return self.entry.journal_bytes + self.size


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry, previous_chain: bytes, max_chunk_bytes: int) -> tuple[list[bytes], bytes]:
    """(chunks, chain value) of `entry`, which follows the entry with chain value `previous_chain`.

    Each chunk has at most `max_chunk_bytes` of payload.
    """
    if entry.seq < 1 or len(previous_chain) != CHAIN_SIZE or (entry.seq == 1) != (previous_chain == NO_CHAIN):
        raise InvariantError(f"entry {entry.seq} cannot follow chain {previous_chain.hex()}")
    body = _encoder.encode(entry)
    chain = _next_chain(previous_chain, body)
    payloads = [body[i : i + max_chunk_bytes] for i in range(0, len(body), max_chunk_bytes)]
    count = len(payloads)
    chunks = []
    for index, payload in enumerate(payloads):
        fields = _FIELDS.pack(entry.kind, index, count, entry.seq, chain)
        chunks.append(_ENVELOPE.seal(payload, fields))
    return chunks, chain


def begins_entry(chunk: bytes) -> bool:
    """Whether this is the first chunk of an entry, where a read can start in the middle of a journal."""
    return len(chunk) >= _ENVELOPE.header_size and _FIELDS.unpack(_ENVELOPE.fields_of(chunk))[1] == 0


def chain_after(previous_chain: bytes, chunks: Sequence[bytes]) -> bytes:
    """The chain value that the entry in these chunks has if it follows one with chain value `previous_chain`."""
    return _next_chain(previous_chain, b"".join(map(_ENVELOPE.open, chunks)))


def make_journal_entry(entry: Entry, chain: bytes, offset: int, chunks: Sequence[bytes]) -> JournalEntry:
    """An entry that was just committed, at the offset that the producer reported."""
    return JournalEntry(entry, offset, offset + len(chunks), chain, sum(map(len, chunks)))


def assemble(
    chunks: Iterable[tuple[int, bytes]], where: str, previous: JournalEntry | None = None
) -> Iterator[JournalEntry]:
    """Assemble and verify entries from (offset, chunk) pairs in offset order.

    `previous`: the entry before the first chunk, if it is known. Without it, the chain value of the first entry is not
    verified unless its seq is 1. Verified are magic, version and checksum; that chunks are complete and adjacent, seqs
    contiguous, chain values correct, and offsets increasing; and that positions do not decrease. Raises FatalTaskError
    with `where` and the offset.
    """
    parts: list[bytes] = []
    start = 0
    last_offset = -1
    current: tuple[int, bytes, int, int] | None = None
    for offset, chunk in chunks:
        if offset <= last_offset:
            raise _bad(where, offset, f"offset does not rise (after {last_offset})")
        index, count, seq, chain, kind, payload = _parse_chunk(chunk, where, offset)
        if current is None:
            if index != 0:
                raise _bad(where, offset, f"entry {seq} starts with chunk {index}")
            current, start = (seq, chain, count, kind), offset
        elif current != (seq, chain, count, kind) or index != len(parts) or offset != last_offset + 1:
            raise _bad(where, offset, f"chunk {index} of entry {seq} does not belong to entry {current[0]}")
        last_offset = offset
        parts.append(payload)
        if len(parts) == count:
            previous = _verify(b"".join(parts), seq, chain, kind, start, offset + 1, previous, where)
            yield previous
            parts, current = [], None
    if current is not None:
        raise _bad(where, last_offset, f"entry {current[0]} ends after chunk {len(parts)} of {current[2]}")


def _verify(
    body: bytes,
    seq: int,
    chain: bytes,
    kind: int,
    start: int,
    end: int,
    previous: JournalEntry | None,
    where: str,
) -> JournalEntry:
    try:
        entry = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise _bad(where, start, f"entry {seq} cannot be decoded: {error}") from error
    if entry.seq != seq or entry.kind != kind:
        raise _bad(where, start, f"entry says seq {entry.seq}, kind {entry.kind}; its chunk {seq}, {kind}")
    if previous is not None:
        if seq != previous.entry.seq + 1:
            raise _bad(where, start, f"seq {seq} follows {previous.entry.seq}")
        if chain != _next_chain(previous.chain, body):
            raise _bad(
                where, start, f"entry {seq} does not continue entry {previous.entry.seq}: the chain differs"
            )
        if entry.kind is not EntryKind.RESET:
            before: Mapping[str, int] = previous.entry.positions
            if entry.kind is EntryKind.ACQUIRE and entry.identity is not None:
                before = _without_replaced(before, entry.identity)
            check_positions(before, entry.positions, where, start)
    elif seq == 1 and chain != _next_chain(NO_CHAIN, body):
        raise _bad(where, start, "the chain of entry 1 is wrong")
    return JournalEntry(entry, start, end, chain, len(body) + (end - start) * _ENVELOPE.header_size)


def _without_replaced(positions: Mapping[str, int], identity: Identity) -> Mapping[str, int]:
    """The positions, except those of topics that were replaced by another topic of the same name."""
    replaced = [topic for topic, facts in identity.inputs.items() if facts.replaced]
    return {topic: at for topic, at in positions.items() if topic not in replaced} if replaced else positions


def check_positions(before: Mapping[str, int], after: Mapping[str, int], where: str, offset: int) -> None:
    """Input positions never decrease or disappear, except in a reset, or if an acquire entry says `replaced`."""
    for topic, position in before.items():
        if after.get(topic, -1) < position:
            raise _bad(where, offset, f"the position of {topic} falls from {position} to {after.get(topic)}")


def _parse_chunk(chunk: bytes, where: str, offset: int) -> tuple[int, int, int, bytes, int, bytes]:
    try:
        payload = _ENVELOPE.open(chunk)
    except EnvelopeError as error:
        _, index, _, seq, _ = _FIELDS.unpack(_ENVELOPE.fields_of(chunk.ljust(_ENVELOPE.header_size)))
        fields = {"size": len(chunk), "version": error.version, "index": index, "seq": seq}
        raise _bad(where, offset, _FAULTS[error.fault].format(**fields)) from error
    kind, index, count, seq, chain = _FIELDS.unpack(_ENVELOPE.fields_of(chunk))
    return index, count, seq, chain, kind, payload


def _next_chain(previous: bytes, body: bytes) -> bytes:
    return blake2b(previous + body, digest_size=CHAIN_SIZE).digest()


def _bad(where: str, offset: int, what: str) -> FatalTaskError:
    return FatalTaskError(
        f"the journal {where} is damaged at offset {offset}: {what}",
        hint="stop the worker and follow runbooks/journal-check-failed.md",
    )

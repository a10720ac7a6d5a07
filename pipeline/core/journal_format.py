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
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.core.entry_body import (
    NEWEST,
    Entry,
    EntryKind,
    Format,
    Identity,
    InputFacts,
    decode_body,
    encode_body,
    reset_partitions,
)
from pipeline.core.envelope import BinaryEnvelope, EnvelopeError, Fault
from pipeline.core.inputs import ordinal_of, topic_of
from pipeline.errors import FatalTaskError, InvariantError

__all__ = [
    "CHAIN_SIZE",
    "NO_CHAIN",
    "Entry",
    "EntryKind",
    "Format",
    "Identity",
    "InputFacts",
    "JournalEntry",
    "assemble",
    "begins_entry",
    "chain_after",
    "encode_entry",
    "format_of_chunk",
    "make_journal_entry",
]

CHAIN_SIZE = 16
NO_CHAIN = bytes(CHAIN_SIZE)

_FIELDS = struct.Struct(">BIIQ16s")


def _covered(fields: bytes) -> bytes:
    """Chain, index and count."""
    return fields[17:] + fields[1:9]


_ENVELOPES: Mapping[int, BinaryEnvelope] = {
    version: BinaryEnvelope(version=version, magic=b"XJ", fields=_FIELDS.size, covered=_covered)
    for version in (1, 2)
}
_ENVELOPE = _ENVELOPES[NEWEST]
_VERSION_AT = 2  # after the magic
_FAULTS = {
    Fault.FOREIGN: "a record of {size} bytes is not a journal chunk",
    Fault.VERSION: f"format version {{version}} is unknown to this release (it knows 1 to {NEWEST})",
    Fault.CHECKSUM: "the checksum of chunk {index} of entry {seq} is wrong",
}


class JournalEntry(NamedTuple):
    """An entry in a journal: first chunk's `offset`, `next_offset` after the last, chain value, bytes, format."""

    entry: Entry
    offset: int
    next_offset: int
    chain: bytes
    size: int = 0
    version: Format = 1

    @property
    def checkpoint(self) -> int:
        """The offset of the last CHECKPOINT entry up to this one; -1 if there is none."""
        return self.offset if self.entry.kind is EntryKind.CHECKPOINT else self.entry.checkpoint

    @property
    def journal_bytes(self) -> int:
        """The bytes of all entries up to this one."""
        return self.entry.journal_bytes + self.size


def encode_entry(
    entry: Entry, previous_chain: bytes, max_chunk_bytes: int, version: Format = 1
) -> tuple[list[bytes], bytes]:
    """(chunks, chain value) of `entry`, which follows the entry with chain value `previous_chain`.

    Each chunk has at most `max_chunk_bytes` of payload. `version`: the format of the journal.
    """
    if entry.seq < 1 or len(previous_chain) != CHAIN_SIZE or (entry.seq == 1) != (previous_chain == NO_CHAIN):
        raise InvariantError(f"entry {entry.seq} cannot follow chain {previous_chain.hex()}")
    body, envelope = encode_body(entry, version), _ENVELOPES[version]
    chain = _next_chain(previous_chain, body)
    payloads = [body[i : i + max_chunk_bytes] for i in range(0, len(body), max_chunk_bytes)]
    count = len(payloads)
    chunks = []
    for index, payload in enumerate(payloads):
        fields = _FIELDS.pack(entry.kind, index, count, entry.seq, chain)
        chunks.append(envelope.seal(payload, fields))
    return chunks, chain


def begins_entry(chunk: bytes) -> bool:
    """Whether this is the first chunk of an entry, where a read can start in the middle of a journal."""
    return len(chunk) >= _ENVELOPE.header_size and _FIELDS.unpack(_ENVELOPE.fields_of(chunk))[1] == 0


def format_of_chunk(chunk: bytes) -> Format | None:
    """The format of the journal that contains a chunk, unverified; None for a record that is not a chunk of 1 or 2."""
    if len(chunk) < _ENVELOPE.header_size or not chunk.startswith(_ENVELOPE.magic):
        return None
    return {1: 1, 2: 2}.get(chunk[_VERSION_AT])  # type: ignore[return-value]


def chain_after(previous_chain: bytes, chunks: Sequence[bytes]) -> bytes:
    """The chain value that the entry in these chunks has if it follows one with chain value `previous_chain`."""
    return _next_chain(previous_chain, b"".join(_envelope_of(chunk).open(chunk) for chunk in chunks))


def make_journal_entry(
    entry: Entry, chain: bytes, offset: int, chunks: Sequence[bytes], version: Format = 1
) -> JournalEntry:
    """An entry that was just committed, at the offset that the producer reported."""
    return JournalEntry(entry, offset, offset + len(chunks), chain, sum(map(len, chunks)), version)


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
    current: tuple[int, bytes, int, int, Format] | None = None
    for offset, chunk in chunks:
        if offset <= last_offset:
            raise _bad(where, offset, f"offset does not rise (after {last_offset})")
        index, count, seq, chain, kind, version, payload = _parse_chunk(chunk, where, offset)
        belongs_to = (seq, chain, count, kind, version)
        if current is None:
            if index != 0:
                raise _bad(where, offset, f"entry {seq} starts with chunk {index}")
            current, start = belongs_to, offset
        elif current != belongs_to or index != len(parts) or offset != last_offset + 1:
            raise _bad(where, offset, f"chunk {index} of entry {seq} does not belong to entry {current[0]}")
        last_offset = offset
        parts.append(payload)
        if len(parts) == count:
            body = _Body(b"".join(parts), seq, chain, kind, version)
            previous = _verify(body, start, offset + 1, previous, where)
            yield previous
            parts, current = [], None
    if current is not None:
        raise _bad(where, last_offset, f"entry {current[0]} ends after chunk {len(parts)} of {current[2]}")


class _Body(NamedTuple):
    """A body, and what its chunks say about it."""

    body: bytes
    seq: int
    chain: bytes
    kind: int
    version: Format


def _verify(found: _Body, start: int, end: int, previous: JournalEntry | None, where: str) -> JournalEntry:
    body, seq, chain, kind, version = found
    try:
        entry = decode_body(body, version)
    except msgspec.DecodeError as error:
        raise _bad(where, start, f"entry {seq} cannot be decoded: {error}") from error
    if entry.seq != seq or entry.kind != kind:
        raise _bad(where, start, f"entry says seq {entry.seq}, kind {entry.kind}; its chunk {seq}, {kind}")
    if previous is not None:
        if seq != previous.entry.seq + 1:
            raise _bad(where, start, f"seq {seq} follows {previous.entry.seq}")
        if version != previous.version:
            raise _bad(where, start, f"entry {seq} has format {version}, the one before {previous.version}")
        if chain != _next_chain(previous.chain, body):
            raise _bad(
                where, start, f"entry {seq} does not continue entry {previous.entry.seq}: the chain differs"
            )
        before: Mapping[str, int] = previous.entry.positions
        if entry.kind is EntryKind.RESET:
            before = _without_reset(before, entry, where, start)
        elif entry.kind is EntryKind.ACQUIRE and entry.identity is not None:
            before = _without_replaced(before, entry.identity)
        check_positions(before, entry.positions, where, start)
        _check_partitions(previous.entry.positions, entry.positions, where, start)
    elif seq == 1 and chain != _next_chain(NO_CHAIN, body):
        raise _bad(where, start, "the chain of entry 1 is wrong")
    size = len(body) + (end - start) * _ENVELOPE.header_size
    return JournalEntry(entry, start, end, chain, size, version)


def _without_replaced(positions: Mapping[str, int], identity: Identity) -> Mapping[str, int]:
    """The positions, except those of topics that were replaced by another topic of the same name."""
    replaced = [topic for topic, facts in identity.inputs.items() if facts.replaced]
    return (
        {name: at for name, at in positions.items() if topic_of(name) not in replaced}
        if replaced
        else positions
    )


def _without_reset(positions: Mapping[str, int], entry: Entry, where: str, offset: int) -> Mapping[str, int]:
    """The positions of the partitions that a RESET entry does not discard."""
    kept = reset_partitions(entry)
    if kept is None:
        return {}
    if entry.identity is None or not entry.identity.tasks:
        raise _bad(where, offset, f"entry {entry.seq} resets some partitions, and names no number of tasks")
    tasks = entry.identity.tasks
    reset = {partition // tasks for partition in kept}
    return {name: at for name, at in positions.items() if ordinal_of(name) not in reset}


def check_positions(before: Mapping[str, int], after: Mapping[str, int], where: str, offset: int) -> None:
    """Input positions never decrease or disappear, except in a reset, or if an acquire entry says `replaced`."""
    for name, position in before.items():
        if after.get(name, -1) < position:
            raise _bad(where, offset, f"the position of {name} falls from {position} to {after.get(name)}")


def _check_partitions(before: Mapping[str, int], after: Mapping[str, int], where: str, offset: int) -> None:
    """A task has the same partitions of a topic at all times. It may read another topic."""
    if before and len(after) > len(before):
        known = {topic_of(name) for name in before}
        added = next((name for name in after if name not in before and topic_of(name) in known), None)
        if added is not None:
            raise _bad(where, offset, f"the task has another partition: {added}")


def _envelope_of(chunk: bytes) -> BinaryEnvelope:
    """The envelope of the chunk's version; that of the newest version reports any other."""
    return _ENVELOPES.get(chunk[_VERSION_AT], _ENVELOPE) if len(chunk) > _VERSION_AT else _ENVELOPE


def _parse_chunk(chunk: bytes, where: str, offset: int) -> tuple[int, int, int, bytes, int, Format, bytes]:
    try:
        payload = _envelope_of(chunk).open(chunk)
    except EnvelopeError as error:
        _, index, _, seq, _ = _FIELDS.unpack(_ENVELOPE.fields_of(chunk.ljust(_ENVELOPE.header_size)))
        fields = {"size": len(chunk), "version": error.version, "index": index, "seq": seq}
        raise _bad(where, offset, _FAULTS[error.fault].format(**fields)) from error
    kind, index, count, seq, chain = _FIELDS.unpack(_ENVELOPE.fields_of(chunk))
    version: Format = 1 if chunk[_VERSION_AT] == 1 else 2
    return index, count, seq, chain, kind, version, payload


def _next_chain(previous: bytes, body: bytes) -> bytes:
    return blake2b(previous + body, digest_size=CHAIN_SIZE).digest()


def _bad(where: str, offset: int, what: str) -> FatalTaskError:
    return FatalTaskError(
        f"the journal {where} is damaged at offset {offset}: {what}",
        hint="stop the worker and follow runbooks/journal-check-failed.md",
    )

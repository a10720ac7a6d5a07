"""The applied position: the journal entry up to which a local state contains its task's history. Pure.

It is written to RocksDB in the same write batch as the delta of the entry, so state and position always
agree. On disk: version u8 | crc32 u32 | msgpack (`core/envelope.py`). The version is the format of the task's journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.core.checkpoint_refs import CheckpointRef, kept_checkpoints
from pipeline.core.entry_body import (
    Format,
    format_of,
    loaded_identity,
    loaded_positions,
    stored_identity,
    stored_positions,
)
from pipeline.core.envelope import BinaryEnvelope, EnvelopeError, Fault
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.errors import CorruptStateError, InvariantError

__all__ = [
    "AppliedPosition",
    "StoredPosition",
    "after",
    "decode_position",
    "encode_position",
    "loaded_position",
    "stored_position",
]

_ENVELOPES: Mapping[int, BinaryEnvelope] = {version: BinaryEnvelope(version=version) for version in (1, 2)}


class AppliedPosition(msgspec.Struct, frozen=True, array_like=True):
    """`offset`/`next_offset` bound the last applied entry in the journal; `chain` is its chain value.

    `positions`: the next input offset to read, by input name. `identity`: from the last genesis or acquire entry.
    `checkpoint`: the offset of the last CHECKPOINT entry, -1 if there is none; `checkpoints`: those that it keeps,
    newest first. `journal_bytes`: the bytes of all entries up to this one.
    """

    seq: int
    offset: int
    next_offset: int
    chain: bytes
    positions: dict[str, int]
    identity: Identity
    stream_time_ms: int = -1
    checkpoint: int = -1
    checkpoints: tuple[CheckpointRef, ...] = ()
    journal_bytes: int = 0

    @property
    def bytes_after_checkpoint(self) -> int:
        """The journal's bytes after the newest checkpoint; all of them if there is none."""
        return self.journal_bytes - (self.checkpoints[0].journal_bytes if self.checkpoints else 0)


class StoredPosition(msgspec.Struct, frozen=True, array_like=True):
    """An applied position as both formats store it: the same fields in the same order."""

    seq: int
    offset: int
    next_offset: int
    chain: bytes
    positions: dict[str, int | tuple[int, ...]]
    identity: Identity
    stream_time_ms: int = -1
    checkpoint: int = -1
    checkpoints: tuple[CheckpointRef, ...] = ()
    journal_bytes: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredPosition)


def after(previous: AppliedPosition | None, applied: JournalEntry) -> AppliedPosition:
    """The position after `applied` is written to the state at `previous`."""
    entry = applied.entry
    identity = entry.identity or (previous.identity if previous else None)
    if identity is None:
        raise InvariantError(f"entry {entry.seq} is applied to a state without identity")
    if previous is not None and entry.seq != previous.seq + 1:
        raise InvariantError(f"entry {entry.seq} is applied to a state at {previous.seq}")
    checkpoints = previous.checkpoints if previous else ()
    if entry.kind is EntryKind.CHECKPOINT:
        checkpoints = kept_checkpoints(applied)
    return AppliedPosition(
        seq=entry.seq,
        offset=applied.offset,
        next_offset=applied.next_offset,
        chain=applied.chain,
        positions=entry.positions,
        identity=identity,
        stream_time_ms=entry.stream_time_ms,
        checkpoint=applied.checkpoint,
        checkpoints=checkpoints,
        journal_bytes=applied.journal_bytes,
    )


def stored_position(position: AppliedPosition) -> AppliedPosition:
    """The position in the form in which its format stores it, to be encoded and for nothing else."""
    version = format_of(position.identity)
    changes: dict[str, Any] = {"identity": stored_identity(position.identity, version)}
    if version == 2:
        changes["positions"] = stored_positions(position.positions, version)
    return msgspec.structs.replace(position, **changes)


def loaded_position(stored: StoredPosition, version: Format) -> AppliedPosition:
    """The position that was read. Raises msgspec.ValidationError if it is of the other format."""
    loaded_identity(stored.identity, version)
    fields: dict[str, Any] = {name: getattr(stored, name) for name in stored.__struct_fields__}
    return AppliedPosition(**{**fields, "positions": loaded_positions(stored.positions, version)})


def encode_position(position: AppliedPosition) -> bytes:
    """The bytes to store."""
    envelope = _ENVELOPES[format_of(position.identity)]
    return envelope.seal(_encoder.encode(stored_position(position)))


def decode_position(data: bytes, where: str) -> AppliedPosition:
    """The verified position. Raises CorruptStateError with `where`."""
    version: Format = 2 if data[:1] == b"\x02" else 1
    try:
        return loaded_position(_decoder.decode(_ENVELOPES[version].open(data)), version)
    except EnvelopeError as error:
        if error.fault is Fault.CHECKSUM:
            raise CorruptStateError(f"the checksum of the applied position in {where} is wrong") from error
        raise CorruptStateError(f"the applied position in {where} has an unknown format") from error
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"the applied position in {where} cannot be decoded: {error}") from error

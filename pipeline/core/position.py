"""The applied position: the journal entry up to which a local state contains its task's history. Pure.

It is written to RocksDB in the same write batch as the delta of the entry, so state and position always
agree. Format: version u8 | crc32 u32 | msgpack (`core/envelope.py`).
"""

from __future__ import annotations

import msgspec

from pipeline.core.checkpoint_refs import CheckpointRef, kept_checkpoints
from pipeline.core.envelope import BinaryEnvelope, EnvelopeError, Fault
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.errors import CorruptStateError, InvariantError

__all__ = ["AppliedPosition", "after", "decode_position", "encode_position"]

_ENVELOPE = BinaryEnvelope(version=1)


class AppliedPosition(msgspec.Struct, frozen=True, array_like=True):
    """`offset`/`next_offset` bound the last applied entry in the journal; `chain` is its chain value.

    `positions`: the next input offset to read, by topic. `identity`: from the last genesis or acquire entry.
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


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AppliedPosition)


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


def encode_position(position: AppliedPosition) -> bytes:
    """The bytes to store."""
    return _ENVELOPE.seal(_encoder.encode(position))


def decode_position(data: bytes, where: str) -> AppliedPosition:
    """The verified position. Raises CorruptStateError with `where`."""
    try:
        return _decoder.decode(_ENVELOPE.open(data))
    except EnvelopeError as error:
        if error.fault is Fault.CHECKSUM:
            raise CorruptStateError(f"the checksum of the applied position in {where} is wrong") from error
        raise CorruptStateError(f"the applied position in {where} has an unknown format") from error
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"the applied position in {where} cannot be decoded: {error}") from error

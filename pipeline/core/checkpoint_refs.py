"""The kept checkpoints of a task, as its CHECKPOINT entries list them. Pure.

A checkpoint is valid from the entry that lists it until the first entry that does not. The journal is fenced and the
store is not, so the list of kept checkpoints is part of the task's history, and every owner reads the same list. Format
of `extra["checkpoints"]`: version u8 | msgpack (`core/envelope.py`). The entry's checksum and chain cover it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.core.envelope import NO_CHECKSUM, BinaryEnvelope, EnvelopeError
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import checkpoint_manifest
from pipeline.errors import FatalTaskError

__all__ = ["CHECKPOINTS", "CheckpointRef", "encode_kept", "kept_checkpoints"]

CHECKPOINTS = "checkpoints"  # the key in an entry's `extra`
_ENVELOPE = BinaryEnvelope(version=1, checksum=NO_CHECKSUM)


class CheckpointRef(msgspec.Struct, frozen=True, array_like=True):
    """One registered checkpoint.

    `seq`, `offset` and `chain` are those of the last entry that its state contains. `nonce` is part of the manifest's
    name, `digest` that of the manifest's bytes. `size`: bytes of its files. `journal_bytes`: bytes of the journal's
    entries up to that state.
    """

    seq: int
    offset: int
    chain: bytes
    nonce: bytes
    digest: bytes
    size: int
    journal_bytes: int
    wall_ms: int

    @property
    def manifest(self) -> str:
        """The manifest's name, relative to the task's prefix."""
        return checkpoint_manifest(self.seq, self.nonce)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[CheckpointRef, ...])


def encode_kept(kept: Sequence[CheckpointRef]) -> bytes:
    """The bytes for a CHECKPOINT entry. `kept`: newest first."""
    return _ENVELOPE.seal(_encoder.encode(tuple(kept)))


def kept_checkpoints(entry: JournalEntry) -> tuple[CheckpointRef, ...]:
    """The checkpoints that a CHECKPOINT entry keeps, newest first. Raises FatalTaskError if they cannot be read."""
    data = entry.entry.extra.get(CHECKPOINTS, b"")
    where = f"checkpoint entry {entry.entry.seq} at offset {entry.offset}"
    try:
        return _decoder.decode(_ENVELOPE.open(data))
    except EnvelopeError as error:
        raise FatalTaskError(
            f"{where} has a format that this release does not know",
            hint="start the release that wrote it, or a newer one",
        ) from error
    except msgspec.DecodeError as error:
        raise FatalTaskError(
            f"{where} cannot be decoded: {error}", hint="follow runbooks/journal-check-failed.md"
        ) from error

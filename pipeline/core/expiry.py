"""The rows of tables with a time-to-live. Pure.

    written in ms, 8 bytes, big-endian | indexed in ms, 8 bytes | value

A row is *over* when the event clock has reached `written` plus the time-to-live. Then it is hidden from all readers.
Its entry in the index of what is due (`api/due_index.py`) has the time `indexed`. It may be too early, because a row
that is written again keeps its entry. When the entry is due, the row decides: it is deleted, or gets a later entry.

    Invariant: each row has exactly one entry with its own `indexed`. An entry of another time is left over, and only
    removed.

The mark of a table is the latest time of writing of expired rows: the clock less the time-to-live. It is stored
with the clock and never goes back, so a row that was hidden stays hidden if the time-to-live is raised.
"""

from __future__ import annotations

import struct

from pipeline.core.event_time import ClockState
from pipeline.errors import CorruptStateError

__all__ = ["EXPIRING_SCHEMA", "Stamps", "mark_at", "pack_row", "plain_schema", "row_value", "stamps_of"]

EXPIRING_SCHEMA = "ttl "  # the fingerprints of tables with a time-to-live begin with it

_STAMPS = struct.Struct(">QQ")
_STAMP_BYTES = _STAMPS.size
Stamps = tuple[int, int]  # written, indexed


def pack_row(written_ms: int, indexed_ms: int, value: bytes) -> bytes:
    """A stored row."""
    return _STAMPS.pack(written_ms, indexed_ms) + value


def stamps_of(data: bytes) -> Stamps:
    """(written, indexed) of a stored row. Raises CorruptStateError."""
    if len(data) < _STAMP_BYTES:
        raise CorruptStateError(f"a row with a time-to-live is only {len(data)} bytes long: {data!r}")
    written_ms, indexed_ms = _STAMPS.unpack_from(data)
    return written_ms, indexed_ms


def row_value(data: bytes) -> bytes:
    """The encoded value of a stored row."""
    return data[_STAMP_BYTES:]


def mark_at(clock: ClockState, name: str, ttl_ms: int) -> int:
    """Rows of a table that were written up to this time have expired."""
    return max(clock.closed.get(name, -1), clock.clock_ms - ttl_ms)


def plain_schema(fingerprint: str) -> str:
    """The fingerprint of the same table without a time-to-live."""
    return fingerprint.removeprefix(EXPIRING_SCHEMA)

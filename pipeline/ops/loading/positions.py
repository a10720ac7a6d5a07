"""The position of a load as it is kept in Kafka: JSON for people to read, versioned, with a checksum. Pure.

Version 2 knows loads of many files; version 1, of one file each, can still be read. The checksum is over the exact
bytes of the body.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.core.envelope import EnvelopeError, Fault, JsonEnvelope, unknown_version
from pipeline.errors import CorruptStateError, InvariantError
from pipeline.ops.loading.finished_files import NOTHING_PASSED, FinishedFiles

__all__ = ["Format", "LoadOptions", "LoadPosition", "decode_position", "encode_position", "position_name"]

_ENVELOPE = JsonEnvelope(body="load", version=2, older=(1,), before=("name",))

Format = Literal["csv", "jsonl", "parquet"]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides how a row becomes a record. The same for all of a load, or its records would differ."""

    format: Format
    key: str | None = None
    id: str | None = None
    timestamp: str | None = None
    null: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What a position's `line` counts."""
        return "row" if self.format == "parquet" else "line"


class LoadPosition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a load has come: `passed` are the files behind it, the other places are in `file`.

    `offset` counts unpacked bytes, of Parquet rows; `line` lines or rows; `records` what this run has produced from
    all files. `prefix_hash` is over the bytes before `offset`, of Parquet over the whole file. `seq` counts the
    transactions under this name and `nonce` is unique to each attempt at one. `text_columns` is None until the
    beginning of the first CSV file that has rows has decided it.
    """

    name: str
    run: int
    seq: int
    nonce: str
    topic: str
    topic_id: str
    file: str
    options: LoadOptions
    offset: int
    line: int
    records: int
    skipped: int
    prefix_hash: str
    finished: bool
    text_columns: tuple[str, ...] | None = None
    passed: FinishedFiles = NOTHING_PASSED


def encode_position(position: LoadPosition) -> bytes:
    """The durable form. Raises InvariantError for a position that cannot be right."""
    fault = _fault(position)
    if fault:
        raise InvariantError(f"load {position.name!r}: a position with {fault} must not be written")
    return _ENVELOPE.seal(msgspec.json.encode(position), {"name": position.name})


def decode_position(data: bytes, name: str) -> LoadPosition | None:
    """The position in `data`; None when it belongs to another load than `name`.

    Raises CorruptStateError when the record is damaged or of a version this release does not know.
    """
    try:
        sealed = _ENVELOPE.read(data)
        if sealed.fields["name"] != name:
            return None
        position = msgspec.json.decode(_ENVELOPE.verify(sealed), type=LoadPosition)
    except EnvelopeError as error:
        if error.fault is Fault.VERSION:
            raise unknown_version(f"load {name!r}", error, _ENVELOPE.version) from error
        if error.fault is Fault.CHECKSUM:
            raise _corrupt(name, "the checksum of its position is wrong") from error
        raise _corrupt(name, f"a record of it cannot be read: {error.__cause__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(name, f"its position cannot be read: {error}") from error
    fault = _fault(position)
    if fault or position.name != name:
        raise _corrupt(name, f"its position has {fault or 'another name'}")
    return position


def position_name(data: bytes) -> str | None:
    """The load that a record belongs to; None when it does not tell, as an empty one."""
    try:
        return _ENVELOPE.read(data).fields["name"]
    except EnvelopeError:
        return None


def _fault(position: LoadPosition) -> str | None:
    for field in ("offset", "line", "records", "skipped"):
        if getattr(position, field) < 0:
            return f"a negative {field}"
    if position.run < 1 or position.seq < 1:
        return "a run or seq below 1"
    if not position.nonce:
        return "no nonce"
    if position.line > position.offset:
        return "more lines than bytes"
    return position.passed.fault()


def _corrupt(name: str, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"load {name!r} cannot be continued: {what}",
        hint="check the topic yourself, then load under another --name",
    )

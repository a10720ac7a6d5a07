"""The position of a load as it is stored in Kafka: readable JSON with a version and a checksum. Pure.

Version 2 is for loads of many files. Version 1, for loads of one file, can still be read. The checksum covers the exact
bytes of the body.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.core.envelope import EnvelopeError, Fault, JsonEnvelope, unknown_version
from pipeline.errors import CorruptStateError, InvariantError
from pipeline.ops.loading.finished_files import NO_FINISHED_FILES, FinishedFiles

__all__ = ["Format", "LoadOptions", "LoadPosition", "decode_position", "encode_position", "position_name"]

_ENVELOPE = JsonEnvelope(body="load", version=2, older=(1,), before=("name",))

Format = Literal["csv", "jsonl", "parquet"]


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options that decide how a row becomes a record. They cannot change during a load."""

    format: Format
    key: str | None = None
    id: str | None = None
    timestamp: str | None = None
    null: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


class LoadPosition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a load has come.

    Attributes:
        run: The number of the run, from 1; `--restart` starts a new run.
        seq: Counts the transactions under this name.
        nonce: Unique to each attempt at a transaction.
        file: The current file. `finished_files` are the files before it.
        offset: The position in `file`: bytes after decompression; rows of a Parquet file.
        line: The position in `file`: lines, or rows.
        records: How many records this run has written, from all files.
        skipped: How many rows without a key this run has skipped.
        prefix_hash: The hash of the bytes before `offset`; of a Parquet file, of all bytes.
        finished: Whether the load has reached the end of its files.
        text_columns: The CSV columns that are text; None until a file with rows has decided that.
        finished_files: The finished files.
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
    finished_files: FinishedFiles = msgspec.field(default=NO_FINISHED_FILES, name="passed")


def encode_position(position: LoadPosition) -> bytes:
    """The durable form. Raises InvariantError if the position is not valid."""
    fault = _fault(position)
    if fault:
        raise InvariantError(f"load {position.name!r}: a position with {fault} must not be written")
    return _ENVELOPE.seal(msgspec.json.encode(position), {"name": position.name})


def decode_position(data: bytes, name: str) -> LoadPosition | None:
    """The position in `data`; None if it belongs to another load than `name`.

    Raises CorruptStateError if the record is damaged, or has a version that this release does not know.
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
        raise _corrupt(name, f"its position cannot be read: {error.__cause__}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(name, f"its position cannot be read: {error}") from error
    fault = _fault(position)
    if fault or position.name != name:
        raise _corrupt(name, f"its position has {fault or 'another name'}")
    return position


def position_name(data: bytes) -> str | None:
    """The name of the load that a record belongs to; None if the record has no readable name."""
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
    return position.finished_files.fault()


def _corrupt(name: str, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"load {name!r} cannot be continued: {what}",
        hint="check which rows are in the topic, then load the others under another --name",
    )

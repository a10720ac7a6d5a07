"""The position of a load, as it is kept in Kafka, and the decisions taken from it. Pure.

A load is one file going to one topic under one name. Every transaction of it writes, beside its records, its
position to the compacted topic `pipeline.loads`, so records and position are committed together or not at
all. Positions are JSON for people to read, with a version and a checksum over the exact bytes of the body.

Start (`plan`), by the last committed position of the name:

| position                                  | --restart | plan                      |
|-------------------------------------------|-----------|---------------------------|
| none                                      | any       | start, run 1              |
| any                                       | yes       | start, next run           |
| of another topic, or of the topic's past  | no        | refuse: what differs      |
| with other options                        | no        | refuse: what differs      |
| matching                                  | no        | continue from it          |

The beginning of the file (`check_prefix`), before continuing: shorter than the position, or with another
hash: refuse. After an unknown outcome (`judge`): our nonce: committed; the position before: aborted; anything
else: another loader had the name in between.
"""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from pipeline.client.lines import Mark
from pipeline.errors import CorruptStateError, FencedError, InputError, InvariantError

__all__ = [
    "LoadOptions",
    "LoadPosition",
    "LoadRequest",
    "LoadStep",
    "Outcome",
    "advance",
    "check_prefix",
    "decode_position",
    "encode_position",
    "judge",
    "plan",
    "taken",
]

VERSION = 1


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides how a line becomes a record. The same for all of a load, or its records would differ."""

    format: Literal["csv", "jsonl"]
    key: str | None = None
    id: str | None = None
    timestamp: str | None = None
    null: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: this file to this topic, read this way, under this name."""

    name: str
    topic: str
    topic_id: str
    file: str
    options: LoadOptions
    restart: bool = False


class LoadPosition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a load has come. `offset` counts unpacked bytes, `records` what this run has produced.

    `seq` counts the transactions under this name and `nonce` is unique to each attempt at one.
    `text_columns` is None until the beginning of a CSV file has decided it.
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


class LoadStep(NamedTuple):
    """What one transaction of a load adds."""

    records: int
    skipped: int
    end: Mark
    finished: bool
    text_columns: tuple[str, ...] | None


class _Envelope(msgspec.Struct, frozen=True):
    version: int
    name: str
    checksum: str
    load: msgspec.Raw


class Outcome(Enum):
    """What became of a commit whose answer was lost."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    TAKEN = "taken"


def encode_position(position: LoadPosition) -> bytes:
    """The durable form. Raises InvariantError for a position that cannot be right."""
    fault = _fault(position)
    if fault:
        raise InvariantError(f"load {position.name!r}: a position with {fault} must not be written")
    body = msgspec.json.encode(position)
    return msgspec.json.encode(
        _Envelope(version=VERSION, name=position.name, checksum=_checksum(body), load=msgspec.Raw(body))
    )


def decode_position(data: bytes, name: str) -> LoadPosition | None:
    """The position in `data`; None when it belongs to another load than `name`.

    Raises CorruptStateError when the record is damaged or of a version this release does not know.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(name, f"a record of it cannot be read: {error}") from error
    if envelope.name != name:
        return None
    if envelope.version != VERSION:
        raise CorruptStateError(
            f"load {name!r} was written in version {envelope.version}; this release knows version {VERSION}",
            hint="use the release that wrote it, or a newer one",
        )
    body = bytes(envelope.load)
    if _checksum(body) != envelope.checksum:
        raise _corrupt(name, "the checksum of its position is wrong")
    try:
        position = msgspec.json.decode(body, type=LoadPosition)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _corrupt(name, f"its position cannot be read: {error}") from error
    fault = _fault(position)
    if fault or position.name != name:
        raise _corrupt(name, f"its position has {fault or 'another name'}")
    return position


def plan(previous: LoadPosition | None, request: LoadRequest) -> LoadPosition | None:
    """The position to continue from, or None to start at the beginning. Raises InputError to refuse."""
    if previous is None or request.restart:
        return None
    if previous.topic != request.topic:
        raise _refused(
            request.name, f"it goes to topic {previous.topic!r}, not {request.topic!r}", "give --name"
        )
    if previous.topic_id != request.topic_id:
        raise _refused(
            request.name,
            f"topic {request.topic!r} was deleted and created again since its last record",
            "load it afresh with --restart, or give --name",
        )
    for field in LoadOptions.__struct_fields__:
        old, new = getattr(previous.options, field), getattr(request.options, field)
        if old != new:
            raise _refused(
                request.name,
                f"it was begun with --{field} {_flag(old)}, not {_flag(new)}",
                "give the same options, or --restart, or another --name",
            )
    return previous


def check_prefix(position: LoadPosition, found: Mark) -> None:
    """Compare the file's beginning, hashed again, with what was loaded. Raises InputError on a difference."""
    if found.offset < position.offset:
        raise _refused(
            position.name,
            f"{position.file} has {found.offset:,} bytes, and {position.offset:,} were loaded: it was cut",
            "give the file it began with, or --restart, or another --name",
        )
    if found.digest != position.prefix_hash:
        raise _refused(
            position.name,
            f"{position.file} has changed within the part that is loaded: the first {position.offset:,} bytes"
            f" ({position.line:,} lines, {position.records:,} records)",
            "give the file it began with, or --restart, or another --name",
        )


def advance(
    previous: LoadPosition | None, request: LoadRequest, run: int, step: LoadStep, nonce: str
) -> LoadPosition:
    """The position after `step`, which follows the committed position `previous`."""
    before = previous if previous is not None and previous.run == run else None
    if before is not None and step.end.offset < before.offset:
        raise InvariantError(
            f"load {request.name!r} went back from byte {before.offset} to {step.end.offset}"
        )
    return LoadPosition(
        name=request.name,
        run=run,
        seq=previous.seq + 1 if previous is not None else 1,
        nonce=nonce,
        topic=request.topic,
        topic_id=request.topic_id,
        file=request.file,
        options=request.options,
        offset=step.end.offset,
        line=step.end.line,
        records=step.records + (before.records if before else 0),
        skipped=step.skipped + (before.skipped if before else 0),
        prefix_hash=step.end.digest,
        finished=step.finished,
        text_columns=step.text_columns,
    )


def judge(previous: LoadPosition | None, attempted: LoadPosition, found: LoadPosition | None) -> Outcome:
    """What became of `attempted`, by the last committed position `found` after the fence."""
    if found is not None and found.nonce == attempted.nonce:
        return Outcome.COMMITTED
    if found == previous:
        return Outcome.ABORTED
    return Outcome.TAKEN


def taken(name: str) -> FencedError:
    """Why this loader must stop: a newer one has its name."""
    return FencedError(
        f"load {name!r}: another loader has taken over this name, or this one stood still for too long",
        hint="nothing is lost or doubled; when no other loader runs, run the same command again to continue",
    )


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
    return None


def _checksum(body: bytes) -> str:
    return blake2b(body, digest_size=8).hexdigest()


def _corrupt(name: str, what: str) -> CorruptStateError:
    return CorruptStateError(
        f"load {name!r} cannot be continued: {what}",
        hint="check the topic yourself, then load under another --name",
    )


def _refused(name: str, what: str, hint: str) -> InputError:
    return InputError(f"load {name!r} cannot be continued: {what}", hint=hint)


def _flag(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(repr, value)) or "(none)"
    return "(none)" if value is None else repr(value)

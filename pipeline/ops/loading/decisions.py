"""The decisions taken from the position of a load. Pure.

A load is a file, or a list of files, going to one topic under one name. Every transaction of it writes, beside its
records, its position to the compacted topic `pipeline.loads`, so records and position are committed together or not
at all.

Start (`plan`), by the last committed position of the name:

| position                                  | --restart | --resume-only | plan                      |
|-------------------------------------------|-----------|-------------------|---------------------------|
| none                                      | any       | no                | start, run 1              |
| none                                      | no        | yes               | refuse: nothing is loaded |
| any                                       | yes       | no                | start, next run           |
| of another topic, or of the topic's past  | no        | any               | refuse: what differs      |
| with other options                        | no        | any               | refuse: what differs      |
| matching                                  | no        | any               | continue from it          |

The list and the file's beginning, before continuing: see `passed.py` for the finished files; of the one
after them (`check_prefix`): shorter than the position, or with another hash: refuse. After an unknown outcome
(`judge`): our nonce: committed; the position before: aborted; anything else: another loader had the name in between.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pipeline.core.recovery import CommitOutcome
from pipeline.errors import FencedError, InputError, InvariantError
from pipeline.ops.loading.finished_files import FinishedFiles
from pipeline.ops.loading.formats.lines import ReadPosition
from pipeline.ops.loading.positions import LoadOptions, LoadPosition

__all__ = [
    "LoadPlace",
    "LoadRequest",
    "LoadStep",
    "advance",
    "check_prefix",
    "judge",
    "plan",
    "refused",
    "taken",
]

_SAME_FILES = "give the files it began with, or --restart, or another --name"


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: files read this way to this topic, under this name.

    `restart`: from the beginning, though some of it may be loaded. `resume_only`: only if some of it is loaded.
    """

    name: str
    topic: str
    topic_id: str
    options: LoadOptions
    restart: bool = False
    resume_only: bool = False


class LoadPlace(NamedTuple):
    """Where a load stands: in which file, behind which others, and how its text columns were decided."""

    file: str
    mark: ReadPosition
    passed: FinishedFiles
    text_columns: tuple[str, ...] | None


class LoadStep(NamedTuple):
    """What one transaction of a load adds."""

    records: int
    skipped: int
    end: LoadPlace
    finished: bool


def plan(previous: LoadPosition | None, request: LoadRequest) -> LoadPosition | None:
    """The position to continue from, or None to start at the beginning. Raises InputError to refuse."""
    if previous is None and request.resume_only:
        raise refused(
            request.name,
            "nothing is known of it: no transaction of a load of this name was ever committed",
            "leave out --resume-only to begin it, or give the --name that it has",
        )
    if previous is None or request.restart:
        return None
    if previous.topic != request.topic:
        raise refused(
            request.name, f"it goes to topic {previous.topic!r}, not {request.topic!r}", "give --name"
        )
    if previous.topic_id != request.topic_id:
        raise refused(
            request.name,
            f"topic {request.topic!r} was deleted and created again since its last record",
            "load it afresh with --restart, or give --name",
        )
    for field in LoadOptions.__struct_fields__:
        old, new = getattr(previous.options, field), getattr(request.options, field)
        if old != new:
            raise refused(
                request.name,
                f"it was begun with --{field} {_flag(old)}, not {_flag(new)}",
                "give the same options, or --restart, or another --name",
            )
    return previous


def check_prefix(position: LoadPosition, found: ReadPosition) -> None:
    """Compare the file's beginning, hashed again, with what was loaded. Raises InputError on a difference."""
    if position.options.format == "parquet":
        if (found.offset, found.digest) != (position.offset, position.prefix_hash):
            raise refused(
                position.name,
                f"{position.file} has changed since {position.line:,} of its rows were loaded: its bytes differ",
                _SAME_FILES,
            )
        return
    if found.offset < position.offset:
        raise refused(
            position.name,
            f"{position.file} has {found.offset:,} bytes, and {position.offset:,} were loaded: it was cut",
            _SAME_FILES,
        )
    if found.digest != position.prefix_hash:
        raise refused(
            position.name,
            f"{position.file} has changed within the part that is loaded: the first {position.offset:,} bytes"
            f" ({position.line:,} lines)",
            _SAME_FILES,
        )


def advance(
    previous: LoadPosition | None, request: LoadRequest, run: int, step: LoadStep, nonce: str
) -> LoadPosition:
    """The position after `step`, which follows the committed position `previous`."""
    before = previous if previous is not None and previous.run == run else None
    file, mark, passed, text_columns = step.end
    if before is not None and (passed.count, mark.offset) < (before.passed.count, before.offset):
        raise InvariantError(
            f"load {request.name!r} went back from byte {before.offset} of file {before.passed.count + 1}"
            f" to byte {mark.offset} of file {passed.count + 1}"
        )
    return LoadPosition(
        name=request.name,
        run=run,
        seq=previous.seq + 1 if previous is not None else 1,
        nonce=nonce,
        topic=request.topic,
        topic_id=request.topic_id,
        file=file,
        options=request.options,
        offset=mark.offset,
        line=mark.line,
        records=step.records + (before.records if before else 0),
        skipped=step.skipped + (before.skipped if before else 0),
        prefix_hash=mark.digest,
        finished=step.finished,
        text_columns=text_columns,
        passed=passed,
    )


def judge(
    previous: LoadPosition | None, attempted: LoadPosition, found: LoadPosition | None
) -> CommitOutcome:
    """What became of `attempted`, by the last committed position `found` after the fence."""
    if found is not None and found.nonce == attempted.nonce:
        return CommitOutcome.COMMITTED
    if found == previous:
        return CommitOutcome.ABORTED
    return CommitOutcome.SUPERSEDED


def taken(name: str) -> FencedError:
    """Why this loader must stop: a newer one has its name."""
    return FencedError(
        f"load {name!r}: another loader has taken over this name, or this one stood still for too long",
        hint="nothing is lost or doubled; when no other loader runs, run the same command again to continue",
    )


def refused(name: str, what: str, hint: str = _SAME_FILES) -> InputError:
    """Why a load cannot be resumed."""
    return InputError(f"load {name!r} cannot be continued: {what}", hint=hint)


def _flag(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(repr, value)) or "(none)"
    return "(none)" if value is None else repr(value)

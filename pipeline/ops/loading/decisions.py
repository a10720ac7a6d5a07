"""The decisions that depend on the position of a load. Pure.

A load writes the rows of a file, or of a list of files, to one topic under one name. Each of its transactions contains
records and the position after them, which goes to the compacted topic `pipeline.loads`.

The start (`plan`) depends on the last committed position of the name:

| position                                        | --restart | --resume-only | plan                       |
|-------------------------------------------------|-----------|---------------|----------------------------|
| none                                            | any       | no            | start, run 1               |
| none                                            | no        | yes           | refuse: nothing was loaded |
| any                                             | yes       | no            | start, next run            |
| of another topic, or of a deleted one           | no        | any           | refuse, with what differs  |
| with other options                              | no        | any           | refuse, with what differs  |
| matching                                        | no        | any           | continue from it           |

Before a load continues, its files are compared with the position. For the finished files see `finished_files.py`. The
file after them (`check_prefix`) is refused if it is shorter than the position or has another hash.

After an unknown outcome (`judge`), the last committed position decides. If it has our nonce, the transaction was
committed. If it is the previous position, the transaction was aborted. Otherwise another loader has taken the name.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pipeline.core.recovery import CommitOutcome
from pipeline.core.suggestions import counted
from pipeline.errors import FencedError, InputError, InvariantError
from pipeline.ops.loading.finished_files import FinishedFiles
from pipeline.ops.loading.formats.lines import ReadPosition
from pipeline.ops.loading.formats.readers import FORMATS
from pipeline.ops.loading.positions import LoadOptions, LoadPosition

__all__ = [
    "LoadRequest",
    "LoadStep",
    "SequencePosition",
    "advance",
    "check_prefix",
    "judge",
    "plan",
    "refused",
    "taken",
]

_SAME_FILES = "give the same files as in the first run, or --restart, or another --name"


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a load.

    `restart`: start from the beginning, even if some rows were loaded before. `resume_only`: refuse to start a load
    that has no committed position.
    """

    name: str
    topic: str
    topic_id: str
    options: LoadOptions
    restart: bool = False
    resume_only: bool = False


class SequencePosition(NamedTuple):
    """How far a load has come.

    `file`: the current file. `mark`: the position in it. `finished_files`: those before it. `text_columns`: the CSV
    columns that are text; None if that is not decided yet.
    """

    file: str
    mark: ReadPosition
    finished_files: FinishedFiles
    text_columns: tuple[str, ...] | None


class LoadStep(NamedTuple):
    """What one transaction adds. `skipped`: rows without a key. `end`: how far the load has come after it."""

    records: int
    skipped: int
    end: SequencePosition
    finished: bool


def plan(previous: LoadPosition | None, request: LoadRequest) -> LoadPosition | None:
    """The position to continue from, or None to start at the beginning. Raises InputError if the load is refused."""
    if previous is None and request.resume_only:
        raise refused(
            request.name,
            "no transaction of a load with this name was ever committed",
            "leave out --resume-only to start it, or correct --name",
        )
    if previous is None or request.restart:
        return None
    if previous.topic != request.topic:
        raise refused(
            request.name,
            f"it loads into topic {previous.topic!r}, not {request.topic!r}",
            "give another --name",
        )
    if previous.topic_id != request.topic_id:
        raise refused(
            request.name,
            f"topic {request.topic!r} was deleted and created again since its last commit",
            "load all rows again with --restart, or give another --name",
        )
    for field in LoadOptions.__struct_fields__:
        old, new = getattr(previous.options, field), getattr(request.options, field)
        if old != new:
            raise refused(
                request.name,
                f"it was started with --{field} {_flag(old)}, not {_flag(new)}",
                "give the same options, or --restart, or another --name",
            )
    return previous


def check_prefix(position: LoadPosition, found: ReadPosition) -> None:
    """Compare the beginning of the file, read again, with what was loaded. Raises InputError if they differ."""
    if FORMATS[position.options.format].seeks:  # the hash covers the whole file
        if (found.offset, found.digest) != (position.offset, position.prefix_hash):
            raise refused(
                position.name,
                f"{position.file} has changed since the load of {counted(position.line, 'row')}: its bytes differ",
                _SAME_FILES,
            )
        return
    if found.offset < position.offset:
        raise refused(
            position.name,
            f"{position.file} has {found.offset:,} bytes, but {position.offset:,} were loaded: it was truncated",
            _SAME_FILES,
        )
    if found.digest != position.prefix_hash:
        raise refused(
            position.name,
            f"{position.file} has changed within the part that was loaded, its first {position.offset:,} bytes"
            f" ({counted(position.line, 'line')})",
            _SAME_FILES,
        )


def advance(
    previous: LoadPosition | None, request: LoadRequest, run: int, step: LoadStep, nonce: str
) -> LoadPosition:
    """The position after `step`, which follows the committed position `previous`."""
    before = previous if previous is not None and previous.run == run else None
    file, mark, finished_files, text_columns = step.end
    number = finished_files.count + 1
    number_before = before.finished_files.count + 1 if before is not None else 1
    if before is not None and (number, mark.offset) < (number_before, before.offset):
        raise InvariantError(
            f"load {request.name!r}: the position fell from byte {before.offset} of file {number_before}"
            f" to byte {mark.offset} of file {number}"
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
        finished_files=finished_files,
    )


def judge(
    previous: LoadPosition | None, attempted: LoadPosition, found: LoadPosition | None
) -> CommitOutcome:
    """The outcome of the transaction with position `attempted`. `found`: the last committed one after the fence."""
    if found is not None and found.nonce == attempted.nonce:
        return CommitOutcome.COMMITTED
    if found == previous:
        return CommitOutcome.ABORTED
    return CommitOutcome.SUPERSEDED


def taken(name: str) -> FencedError:
    """The error of a loader that was fenced."""
    return FencedError(
        f"load {name!r} was stopped: a newer loader uses this name, or this one was suspended for too long",
        hint="no row was lost or loaded twice; if no other loader is running, run the same command again to continue",
    )


def refused(name: str, what: str, hint: str = _SAME_FILES) -> InputError:
    """The error of a load that cannot continue. `what`: the reason."""
    return InputError(f"load {name!r} cannot be continued: {what}", hint=hint)


def _flag(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(repr, value)) or "(none)"
    return "(none)" if value is None else repr(value)

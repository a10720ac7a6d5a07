"""The number of open records of a group, computed without reading its dead letters. Pure.

Two counts are kept, each by the transaction that changes it:

    LetterCount  of a task, in each of its journal's entries: the dead letters that it has written so far
    LetterTally  of a group, in the compacted topic `pipeline.letter-counts.<app>`: the records that are open, and up to
                 which letter of each task that was counted. Written with the marks of a replay or a discard

Open records are those of the tally and those of the letters that tasks have written since. A header of each letter
holds its number within the task. So a command that reads letters while workers run counts exactly the letters up to a
task's entry.

Earlier releases count nothing. A count says if it begins after letters that were not counted; the next command that
reads all letters counts them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pipeline.core.envelope import EnvelopeError, JsonEnvelope

__all__ = [
    "NOT_NUMBERED",
    "NO_LETTERS",
    "LetterCount",
    "LetterNumber",
    "LetterTally",
    "OpenLetters",
    "begun",
    "decode_tally",
    "encode_tally",
    "grown",
    "open_letters",
    "recent",
]

RECENT_MS = 60_000
_ENVELOPE = JsonEnvelope(body="tally", version=1)


class LetterNumber(NamedTuple):
    """Which letter of its task: the count's `since`, and the number in it from 1. (0, 0): not numbered."""

    since: int = 0
    number: int = 0


NOT_NUMBERED = LetterNumber()


class LetterCount(msgspec.Struct, frozen=True, array_like=True):
    """Dead letters of one task. `topic_id`: of their topic; empty: the task has written none yet.

    `since`: the entry at which the count began; it begins again in another topic. `whole`: no letter was written before
    it began. `recent`: letters of the last minute, as of `last_ms`, when the last one was written; older ones fade out.
    """

    topic_id: str
    since: int
    count: int = 0
    whole: bool = True
    recent: float = 0.0
    last_ms: int = 0

    @property
    def at(self) -> LetterNumber:
        """The number of the last letter."""
        return LetterNumber(self.since, self.count)


NO_LETTERS = LetterCount("", 0)


def begun(before: LetterCount | None, topic_id: str, seq: int, *, empty: bool) -> LetterCount:
    """The count of an owner, whose acquire entry is `seq`. `before`: that entry's count, None by earlier releases.

    `empty`: the topic held nothing when the owner's worker started.
    """
    if before is not None and before.topic_id == topic_id:
        return before
    whole = empty if before is None else before.whole or bool(before.topic_id)
    return LetterCount(topic_id, seq, whole=whole)


def grown(
    before: LetterCount | None, owners: LetterCount | None, written: int, now_ms: int
) -> LetterCount | None:
    """The count of the entry after one with `before`, which commits `written` letters. `owners`: from `begun`."""
    same = before is not None and owners is not None and before.topic_id == owners.topic_id
    current = before if same or owners is None else owners
    if current is None or not written:
        return current
    return msgspec.structs.replace(
        current,
        count=current.count + written,
        recent=recent(current, now_ms) + written,
        last_ms=max(now_ms, current.last_ms),
    )


def recent(count: LetterCount, now_ms: int) -> float:
    """Letters of about the last minute."""
    return count.recent * math.exp(-max(0, now_ms - count.last_ms) / RECENT_MS)


class LetterTally(msgspec.Struct, frozen=True, kw_only=True):
    """Open records of a group. `counted`: by partition of the task, the letter up to which; `wall_ms`: when.

    `open` alone may be below 0: letters that were written after `counted` may be handled already.
    """

    group: str
    topic_id: str
    open: int
    counted: dict[int, LetterNumber]
    wall_ms: int


def encode_tally(tally: LetterTally) -> bytes:
    """The value of the record; its key is the group's name."""
    return _ENVELOPE.seal(msgspec.json.encode(tally))


def decode_tally(data: bytes | None) -> LetterTally | None:
    """The tally; None for anything else: the next command that reads all letters writes another one."""
    if not data:
        return None
    try:
        return msgspec.json.decode(_ENVELOPE.open(data), type=LetterTally)
    except (EnvelopeError, msgspec.DecodeError, UnicodeDecodeError):
        return None


class OpenLetters(NamedTuple):
    """Records of a group that are open. `whole`: False where letters of earlier releases were never counted.

    `recent`: letters of about the last minute; `last_ms`: when the last one was written, 0 without any.
    """

    open: int
    whole: bool
    recent: float
    last_ms: int


def open_letters(
    topic_id: str, counts: Mapping[int, LetterCount], tally: LetterTally | None, now_ms: int
) -> OpenLetters:
    """What is open in the dead-letter topic `topic_id`. `counts`: of the tasks' last entries, by partition."""
    known = tally if tally is not None and tally.topic_id == topic_id else None
    counted = known.counted if known is not None else {}
    found, whole, lately, last_ms = known.open if known is not None else 0, True, 0.0, 0
    for partition, count in counts.items():
        if count.topic_id != topic_id:
            continue
        before = counted.get(partition, NOT_NUMBERED)
        continued = before.since == count.since
        found += count.count - (before.number if continued else 0)
        whole = whole and (continued or count.whole)
        lately += recent(count, now_ms)
        last_ms = max(last_ms, count.last_ms)
    return OpenLetters(max(0, found), whole, lately, last_ms)

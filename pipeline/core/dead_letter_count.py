"""The number of open records of a group, computed without reading its dead letters. Pure.

Two counts are kept, each by the transaction that changes it:

    LetterCount  for a task, in each entry of its journal: the dead letters that it has written so far
    LetterTally  for a group, in the compacted topic `pipeline.letter-counts.<app>`: the open records, and the last dead
                 letter of each task that is included. It is written with the marks of a replay or a discard

The open records are those of the tally plus the dead letters that tasks have written since. A header of each dead
letter holds its number within the task. So a command that reads dead letters while workers run counts exactly those up
to a task's entry.

Earlier releases do not count. A count records whether dead letters existed before it began; the next command that reads
all dead letters then counts them.
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
    """The number of a dead letter: the count's `since`, and its number in that count, from 1. (0, 0): not numbered."""

    since: int = 0
    number: int = 0


NOT_NUMBERED = LetterNumber()


class LetterCount(msgspec.Struct, frozen=True, array_like=True):
    """The dead letters of one task. `topic_id`: that of their topic; empty if the task has not written any.

    `since`: the entry at which the count began; it restarts if the topic is replaced. `whole`: no dead letter was
    written before the count began. `recent`: dead letters of the last minute, as of `last_ms`, when the last one was
    written; older ones decay.
    """

    topic_id: str
    since: int
    count: int = 0
    whole: bool = True
    recent: float = 0.0
    last_ms: int = 0

    @property
    def at(self) -> LetterNumber:
        """The number of the last dead letter."""
        return LetterNumber(self.since, self.count)


NO_LETTERS = LetterCount("", 0)


def begun(before: LetterCount | None, topic_id: str, seq: int, *, empty: bool) -> LetterCount:
    """The count of an owner with acquire entry `seq`. `before`: the previous entry's count; None from earlier releases.

    `empty`: the topic was empty when the owner's worker started.
    """
    if before is not None and before.topic_id == topic_id:
        return before
    whole = empty if before is None else before.whole or bool(before.topic_id)
    return LetterCount(topic_id, seq, whole=whole)


def grown(
    before: LetterCount | None, owners: LetterCount | None, written: int, now_ms: int
) -> LetterCount | None:
    """The count of the next entry, which commits `written` dead letters. `owners`: the result of `begun`."""
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
    """Dead letters of about the last minute."""
    return count.recent * math.exp(-max(0, now_ms - count.last_ms) / RECENT_MS)


class LetterTally(msgspec.Struct, frozen=True, kw_only=True):
    """The open records of a group. `counted`: by task, the last dead letter that is included. `wall_ms`: when.

    `open` alone may be negative: dead letters written after `counted` may already be replayed or discarded.
    """

    group: str
    topic_id: str
    open: int
    counted: dict[int, LetterNumber]
    wall_ms: int


def encode_tally(tally: LetterTally) -> bytes:
    """The record's value. Its key is the group's name."""
    return _ENVELOPE.seal(msgspec.json.encode(tally))


def decode_tally(data: bytes | None) -> LetterTally | None:
    """The tally; None for any other value. The next command that reads all dead letters then writes a new one."""
    if not data:
        return None
    try:
        return msgspec.json.decode(_ENVELOPE.open(data), type=LetterTally)
    except (EnvelopeError, msgspec.DecodeError, UnicodeDecodeError):
        return None


class OpenLetters(NamedTuple):
    """The open records of a group. `whole`: False if dead letters of earlier releases were never counted.

    `recent`: dead letters of about the last minute. `last_ms`: when the last one was written; 0 if there is none.
    """

    open: int
    whole: bool
    recent: float
    last_ms: int


def open_letters(
    topic_id: str, counts: Mapping[int, LetterCount | None], tally: LetterTally | None, now_ms: int
) -> OpenLetters:
    """The open records in the dead-letter topic `topic_id`.

    `counts`: those of the tasks' last entries, by task; None where an earlier release wrote the entry.
    """
    known = tally if tally is not None and tally.topic_id == topic_id else None
    counted = known.counted if known is not None else {}
    found, whole, lately, last_ms = known.open if known is not None else 0, True, 0.0, 0
    for number, count in counts.items():
        if count is None:
            whole = False
            continue
        if count.topic_id != topic_id:
            continue
        before = counted.get(number, NOT_NUMBERED)
        continued = before.since == count.since
        found += count.count - (before.number if continued else 0)
        whole = whole and (continued or count.whole)
        lately += recent(count, now_ms)
        last_ms = max(last_ms, count.last_ms)
    return OpenLetters(max(0, found), whole, lately, last_ms)

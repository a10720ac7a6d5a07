"""Finds the record that crashes its process, from how processes ended and what they were handling. Pure.

A record whose handler crashes the process (a segmentation fault in a library) raises no exception, so no policy
applies to it, and every later process that reads it crashes as well. Two things outlive a process:

    the note    which records of which input the processing thread was handling, written once for each batch
    the trace   what Python's fault handler writes at SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT

SIGKILL, an out-of-memory kill and a power loss leave no trace, so they never count against a record.

| the process before   | it was handling                 | suspected before     | suspected now              |
|----------------------|---------------------------------|----------------------|----------------------------|
| left, or no trace    | anything                        | anything             | the same                   |
| left a trace         | nothing                         | anything             | the same                   |
| left a trace         | none of those suspected         | anything             | these, too, 1 crash        |
| left a trace         | some of those suspected         | records of the input | those of both, 1 crash more |

An input can have several suspicions: several records that crash can be in one commit.

| crashes   | suspected   | so the worker                                                               |
|-----------|-------------|-----------------------------------------------------------------------------|
| 1         | any number  | NORMAL: handles them as usual                                               |
| 2         | any number  | CAUTIOUS: notes each of them before it is handled, alone                    |
| 3 or more | several     | CAUTIOUS                                                                    |
| 3 or more | one, proven | APPLY_POLICY: does not handle it; its policy decides                        |
| 3 or more | one         | STOP: does not handle it; its task stops, whatever the policy               |

A suspicion is proven while each of its crashes was on the processing thread. The record may have caused a crash on
another thread (a library's thread pool) or not (the Kafka client). So such a crash can stop a task, but never skips a
record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from pipeline.core.envelope import EnvelopeError, LineEnvelope
from pipeline.core.names import TaskId

__all__ = [
    "CAUTIOUS_AFTER",
    "MAX_SUSPECTS",
    "Conduct",
    "Crash",
    "CrashTrace",
    "Input",
    "Span",
    "Suspect",
    "Suspects",
    "conduct",
    "decode_suspects",
    "encode_suspects",
    "judge",
    "merge",
    "read_trace",
    "remember",
    "suspect_at",
]

CAUTIOUS_AFTER = 2
MAX_SUSPECTS = 1_000
_VERSION = 1
_ENVELOPE = LineEnvelope()
_REASON = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
# "Current": the one that got the signal. Its frames follow, up to an empty line.
_THREAD = re.compile(r"^Current thread 0x([0-9a-fA-F]+).*\n((?:.+\n?)*)", re.MULTILINE)
_MAX_STACK = 4_000


class Input(NamedTuple):
    """One input partition of one group. `topic_id`: a topic that was deleted and recreated has other records.

    `task`: app, group and the number of the partition, which was that of the task before tasks had several.
    """

    task: TaskId
    topic: str
    topic_id: str

    def encode(self) -> bytes:
        """The text form in a note."""
        group, partition = self.task.group, self.task.number
        return "\n".join([self.task.app, group, str(partition), self.topic, self.topic_id]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Input | None:
        """The input; None if `encode` has not written the text."""
        try:
            app, group, partition, topic, topic_id = data.decode().split("\n")
            return cls(TaskId(app, group, int(partition)), topic, topic_id)
        except ValueError:
            return None


class Span(NamedTuple):
    """A range of records of an input; both offsets are inclusive."""

    first: int
    last: int


class Crash(NamedTuple):
    """A process that a fatal signal ended while it handled records.

    `here`: the processing thread received the signal.
    """

    input: Input
    span: Span
    here: bool


class Suspect(NamedTuple):
    """Records, one of which has crashed the process this many times."""

    span: Span
    crashes: int
    proven: bool


Suspects = Mapping[Input, Sequence[Suspect]]


class Conduct(Enum):
    """See the table above."""

    NORMAL = "normal"
    CAUTIOUS = "cautious"
    APPLY_POLICY = "apply policy"
    STOP = "stop"


def judge(before: Sequence[Suspect], crash: Crash) -> list[Suspect]:
    """The suspicions about an input after one more crash; the newest is last."""
    kept = list(before)
    # Usually there is at most one. Of several, take the one that is closest to a decision.
    for suspect in sorted(before, key=lambda suspect: -suspect.crashes):
        first, last = max(suspect.span.first, crash.span.first), min(suspect.span.last, crash.span.last)
        if first <= last:
            kept.remove(suspect)
            return [
                *kept,
                Suspect(Span(first, last), suspect.crashes + 1, suspect.proven and crash.here),
            ]
    return [*kept, Suspect(crash.span, 1, crash.here)]


def merge(mine: Sequence[Suspect], noted: Sequence[Suspect]) -> list[Suspect]:
    """The suspicions of two workers about an input.

    Of two about the same records, the one with more crashes is kept.
    """
    kept = [one for one in mine if not any(_overlap(one, two) and two.crashes > one.crashes for two in noted)]
    return [*kept, *(two for two in noted if not any(_overlap(one, two) for one in kept))]


def _overlap(one: Suspect, two: Suspect) -> bool:
    return one.span.first <= two.span.last and two.span.first <= one.span.last


def remember(suspects: Suspects, crash: Crash) -> dict[Input, Sequence[Suspect]]:
    """All suspicions after one more crash; the newest is last. There are at most MAX_SUSPECTS."""
    kept = {place: found for place, found in suspects.items() if place != crash.input}
    kept[crash.input] = judge(suspects.get(crash.input, ()), crash)
    return _by_input(_rows(kept)[-MAX_SUSPECTS:])


def suspect_at(suspects: Sequence[Suspect], offset: int) -> Suspect | None:
    """The suspicion about the record at this offset that is closest to a decision."""
    found = [suspect for suspect in suspects if suspect.span.first <= offset <= suspect.span.last]
    return max(found, key=lambda suspect: suspect.crashes, default=None)


def conduct(suspect: Suspect | None) -> Conduct:
    """How to treat a record with this suspicion."""
    if suspect is None or suspect.crashes < CAUTIOUS_AFTER:
        return Conduct.NORMAL
    if suspect.crashes == CAUTIOUS_AFTER or suspect.span.first < suspect.span.last:
        return Conduct.CAUTIOUS
    return Conduct.APPLY_POLICY if suspect.proven else Conduct.STOP


class CrashTrace(NamedTuple):
    """The output of the fault handler. `thread`: the one that received the signal; None if it is not a Python thread.

    `stack`: its frames, innermost first.
    """

    reason: str
    thread: int | None
    stack: str


def read_trace(text: str) -> CrashTrace | None:
    """The trace; None if the fault handler did not write the text."""
    reason = _REASON.search(text)
    if reason is None:
        return None
    thread = _THREAD.search(text)
    if thread is None:
        return CrashTrace(reason[1], None, "")
    return CrashTrace(reason[1], int(thread[1], 16), thread[2][:_MAX_STACK].rstrip())


class _CrashRow(msgspec.Struct, frozen=True, array_like=True):
    place: Input
    suspect: Suspect


class _File(msgspec.Struct, frozen=True, array_like=True):
    version: int
    counted: str
    rows: list[_CrashRow]


def encode_suspects(suspects: Suspects, counted: str) -> bytes:
    """The bytes for the disk. `counted`: the last process whose end is included, so that it is not counted twice."""
    return _ENVELOPE.seal(msgspec.json.encode(_File(_VERSION, counted, _rows(suspects))))


def decode_suspects(data: bytes) -> tuple[dict[Input, Sequence[Suspect]], str]:
    """(suspects, the last process that was counted). A damaged file gives none: crashes are then counted from 0."""
    try:
        file = msgspec.json.decode(_ENVELOPE.open(data), type=_File)
    except (EnvelopeError, msgspec.DecodeError, UnicodeDecodeError):
        return {}, ""
    return (_by_input(file.rows), file.counted) if file.version == _VERSION else ({}, "")


def _rows(suspects: Suspects) -> list[_CrashRow]:
    return [_CrashRow(place, suspect) for place, found in suspects.items() for suspect in found]


def _by_input(rows: Iterable[_CrashRow]) -> dict[Input, Sequence[Suspect]]:
    found: dict[Input, Sequence[Suspect]] = {}
    for row in rows:
        found[row.place] = [*found.get(row.place, ()), row.suspect]
    return found

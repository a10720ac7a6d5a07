"""Reads a task's journal: the settled end, and verified entries between two offsets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import dropwhile

import msgspec

from pipeline.config import WorkerSettings
from pipeline.core.journal_format import JournalEntry, assemble, begins_entry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import FatalTaskError, StaleReadError
from pipeline.ports import Deadline, JournalBounds, JournalReader
from pipeline.runtime.environment import Environment

__all__ = [
    "complete_entries",
    "first_entry",
    "last_entries",
    "last_entry",
    "read_entries",
    "settled_end",
    "without_delta",
]

# The interval in which the coordinator aborts expired transactions.
COORDINATOR_SCAN_S = 10.0
# An entry and its marker have two offsets; entries with several chunks have more.
OFFSETS_PER_ENTRY = 2
ONE_READER_S = 3.0
POLL_S = 0.05


def read_entries(
    task: TaskId, reader: JournalReader, start: int, end: int, previous: JournalEntry | None
) -> Iterator[JournalEntry]:
    """The committed entries in [start, end). If `previous` is given, checks that they continue it."""
    return assemble(reader.read(task.journal, start, end), str(task.journal), previous)


def first_entry(task: TaskId, reader: JournalReader, start: int, end: int) -> JournalEntry | None:
    """The first committed entry at or after `start`; None if there is none below `end`."""
    return next(read_entries(task, reader, start, end, None), None) if start < end else None


def complete_entries(task: TaskId, reader: JournalReader, start: int, end: int) -> Iterator[JournalEntry]:
    """The committed entries that begin in [start, end). `start` may be inside an entry of several chunks."""
    if start >= end:
        return iter(())
    return assemble(dropwhile(_continues_entry, reader.read(task.journal, start, end)), str(task.journal))


def last_entries(
    journal: TopicPartition, reader: JournalReader, bounds: JournalBounds, count: int, *, deltas: bool = False
) -> list[JournalEntry]:
    """The last `count` committed entries of a journal, or all if it has fewer. Without `deltas`, with empty deltas."""
    span = count * OFFSETS_PER_ENTRY
    while True:
        start = max(bounds.start, bounds.stable_end - span)
        # The read may start inside an entry of several chunks: start at a first chunk.
        chunks = dropwhile(_continues_entry, reader.read(journal, start, bounds.stable_end))
        read = assemble(chunks, str(journal))
        entries = deque(read if deltas else map(without_delta, read), maxlen=count)
        if len(entries) >= count or start <= bounds.start:
            return list(entries)
        span *= 4


def last_entry(
    journal: TopicPartition, reader: JournalReader, bounds: JournalBounds | None = None
) -> JournalEntry | None:
    """The last committed entry of a journal, with an empty delta; None if it has none. `bounds`: default, the current.

    Raises UnreachableError, RetriableError (the journal was truncated meanwhile), FatalTaskError (it is damaged).
    """
    found = last_entries(journal, reader, reader.bounds(journal) if bounds is None else bounds, 1)
    return found[0] if found else None


def without_delta(entry: JournalEntry) -> JournalEntry:
    """The entry without its delta, which is not needed to continue after it and uses memory."""
    return entry._replace(entry=msgspec.structs.replace(entry.entry, delta={}))


def _continues_entry(chunk: tuple[int, bytes]) -> bool:
    return not begins_entry(chunk[1])


def settled_end(
    task: TaskId,
    environment: Environment,
    settings: WorkerSettings,
    fence: Callable[[], None],
    at_least: int = 0,
) -> int:
    """The journal's end once committed readers and all readers have the same end.

    After the fence no transaction of this task can be open, so a difference is temporary. If it lasts longer than the
    transaction time-out and the coordinator's scan interval, the task is fenced once more. Only after that is the
    transaction reported as hanging.

    `at_least`: the known end at the journal's leader. Every few seconds a new client repeats the read, because it may
    connect to another broker. Raises StaleReadError if the broker that answers ends below it.
    """
    patience_s = settings.transaction_timeout_ms / 1000 + COORDINATOR_SCAN_S + 5.0
    for attempt in range(2):
        deadline = Deadline(environment.clock, patience_s, 0.0)
        while not deadline.has_passed():
            with closing(environment.journals()) as reader:
                bounds = _settled(task, reader, environment, at_least)
            if bounds.stable_end >= bounds.end:
                return bounds.end
        if attempt == 0:
            fence()
    raise FatalTaskError(
        f"a transaction hangs in {task.journal}: committed records end at {bounds.stable_end}, the log at {bounds.end}",
        hint="before you abort it, find out what Kafka decided: runbooks/hanging-transaction.md",
    )


def _settled(task: TaskId, reader: JournalReader, environment: Environment, at_least: int) -> JournalBounds:
    """The bounds as soon as both ends are equal, or after a time-out."""
    deadline = Deadline(environment.clock, ONE_READER_S, POLL_S)
    while True:
        bounds = reader.bounds(task.journal)
        if bounds.end < at_least:
            raise StaleReadError(
                f"{task.journal} is at offset {at_least} or beyond; the queried broker reports its end at "
                f"{bounds.end}"
            )
        if bounds.stable_end >= bounds.end or not deadline.pause():
            return bounds

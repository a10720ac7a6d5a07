"""Reading a task's journal: its settled end, and verified entries between two offsets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import dropwhile

import msgspec

from pipeline.config import WorkerSettings
from pipeline.core.journal import JournalEntry, assemble, begins_entry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import FatalTaskError, StaleReadError
from pipeline.ports import Deadline, JournalBounds, JournalReader
from pipeline.runtime.environment import Environment

__all__ = ["first_entry", "last_entries", "read_entries", "settled_end", "without_delta"]

# The coordinator looks for timed-out transactions this often.
COORDINATOR_SCAN_S = 10.0
# An entry and its marker take two; entries in several chunks take more.
OFFSETS_PER_ENTRY = 2
ONE_READER_S = 3.0
POLL_S = 0.05


def read_entries(
    task: TaskId, reader: JournalReader, start: int, end: int, previous: JournalEntry | None
) -> Iterator[JournalEntry]:
    """Committed entries in [start, end), verified as continuing `previous` where that is given."""
    return assemble(reader.read(task.journal, start, end), str(task.journal), previous)


def first_entry(task: TaskId, reader: JournalReader, start: int, end: int) -> JournalEntry | None:
    """The first committed entry at or after `start`; None when there is none below `end`."""
    return next(read_entries(task, reader, start, end, None), None) if start < end else None


def last_entries(
    journal: TopicPartition, reader: JournalReader, bounds: JournalBounds, count: int, *, deltas: bool = False
) -> list[JournalEntry]:
    """The last `count` committed entries of a journal, or as many as it holds; without `deltas`, theirs are empty."""
    span = count * OFFSETS_PER_ENTRY
    while True:
        start = max(bounds.start, bounds.stable_end - span)
        # A look into the middle may begin inside an entry of several chunks: begin at a first chunk.
        chunks = dropwhile(_continues_entry, reader.read(journal, start, bounds.stable_end))
        read = assemble(chunks, str(journal))
        entries = deque(read if deltas else map(without_delta, read), maxlen=count)
        if len(entries) >= count or start <= bounds.start:
            return list(entries)
        span *= 4


def without_delta(entry: JournalEntry) -> JournalEntry:
    """The entry as one to continue from, or to be told about; its delta would only hold memory."""
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
    """The journal's end once committed readers and all readers agree on it.

    After our init no transaction of this task can be open, so a difference passes; one that outlives the
    transaction time-out and the coordinator's scan is fenced once more, and only then called hanging.

    `at_least`: where the journal's leader is known to be. Every few seconds another client looks, which may find
    another broker. Raises StaleReadError when the broker that answers is not that far.
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
        f"a transaction hangs in {task.journal}: committed readers end at {bounds.stable_end}, the log at {bounds.end}",
        hint="find out what Kafka decided on it before you abort it: runbooks/hanging-transaction.md",
    )


def _settled(task: TaskId, reader: JournalReader, environment: Environment, at_least: int) -> JournalBounds:
    """The bounds as soon as they agree, or after some time."""
    deadline = Deadline(environment.clock, ONE_READER_S, POLL_S)
    while True:
        bounds = reader.bounds(task.journal)
        if bounds.end < at_least:
            raise StaleReadError(
                f"{task.journal} is at offset {at_least} or beyond; the broker that was asked sees it end at "
                f"{bounds.end}"
            )
        if bounds.stable_end >= bounds.end or not deadline.pause():
            return bounds

"""Appends one entry to a task's journal from a command, without its worker: a reset or a retirement.

    1 fence the task: its worker can no longer commit
    2 write a barrier: the journal's leader reports the end (transactions/proof.py)
    3 read the settled journal up to that end, and the last entry
    4 commit the new entry after the last one

A crash before 4 leaves the task unchanged but fenced, and its worker acquires it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from pipeline.config import WorkerSettings
from pipeline.core.journal_format import Identity, JournalEntry
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import FatalTaskError, FencedError, RetriableError, SupersededError
from pipeline.ports import Attempts, JournalBounds, JournalReader, growing
from pipeline.runtime.commit.commit_protocol import Publisher
from pipeline.runtime.commit.journal_reader import last_entry, settled_end
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment

__all__ = ["append_entry", "last_of", "settled_last"]

MAX_ATTEMPTS = 3
MAX_READS = 9
READ_PAUSES_S = (0.1, 2.0)
_NO_IDENTITY = Identity("", "", {}, {}, "")


def append_entry(
    task: TaskId,
    owner: str,
    make: Callable[[JournalEntry], Commit | None],
    environment: Environment,
    settings: WorkerSettings,
) -> int:
    """Append the entry that `make` returns for the last entry, and return its number.

    If `make` returns None, appends nothing and returns the number of the last entry. Raises FencedError if workers
    acquire the task again and again, UnreachableError, FatalTaskError.
    """
    publisher = Publisher(task, owner, environment, settings)
    attempt = 0
    try:
        publisher.stop_waiting()
        while True:
            attempt += 1
            try:
                publisher.fence()  # 1
                publisher.barrier()  # 2
                head, end = settled_last(task, publisher, environment, settings)  # 3
                commit = make(head)
                if commit is None:
                    return head.entry.seq
                publisher.take(_NoStore(), head, _applied(head), end)
                return publisher.publish(commit).seq  # 4
            except (FencedError, SupersededError):
                if attempt == MAX_ATTEMPTS:
                    raise
    finally:
        publisher.close()


def settled_last(
    task: TaskId, publisher: Publisher, environment: Environment, settings: WorkerSettings
) -> tuple[JournalEntry, int]:
    """The last entry before a barrier, and the journal's end. Raises StaleReadError if no reader sees that end.

    Each attempt has a new reader, which may connect to another broker.
    """
    reads = Attempts(environment.clock, MAX_READS, growing(*READ_PAUSES_S))
    while True:
        with closing(environment.journals()) as reader:
            try:
                end = settled_end(task, environment, settings, publisher.fence, publisher.known_end)
                start = reader.bounds(task.journal).start
                return last_of(task, reader, JournalBounds(start, end, end)), end
            except RetriableError:
                if not reads.pause():
                    raise


def last_of(task: TaskId, reader: JournalReader, bounds: JournalBounds | None = None) -> JournalEntry:
    """The last entry of a task, within bounds that were read before. Raises FatalTaskError if there is none."""
    entry = last_entry(task.journal, reader, bounds)
    if entry is None:
        raise FatalTaskError(
            f"the journal of task {task} holds no entry",
            hint="start a worker; if the group existed before: runbooks/journal-lost.md",
        )
    return entry


class _NoStore:
    """A store that keeps nothing. The worker of the task has the state, and its next restore reads the entry."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: there are no resources."""


def _applied(head: JournalEntry) -> AppliedPosition:
    """An applied position without an identity, because no store keeps it."""
    return AppliedPosition(
        seq=head.entry.seq,
        offset=head.offset,
        next_offset=head.next_offset,
        chain=head.chain,
        positions=head.entry.positions,
        identity=head.entry.identity or _NO_IDENTITY,
        checkpoint=head.checkpoint,
        journal_bytes=head.journal_bytes,
    )

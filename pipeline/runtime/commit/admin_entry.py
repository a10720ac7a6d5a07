"""Appends one entry to a task's journal from outside of its worker: a reset, a retirement.

    1 fence the task: whoever runs it can commit nothing any more
    2 a barrier: the journal's leader says where it ends (transactions/proof.py)
    3 the journal up to there, settled, and the last entry
    4 commit the entry behind it

A crash before 4 leaves the task as it was, fenced, and its worker takes it up again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from pipeline.config import WorkerSettings
from pipeline.core.journal import Identity, JournalEntry
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import FatalTaskError, FencedError, RetriableError, SupersededError
from pipeline.ports import JournalBounds, JournalReader
from pipeline.runtime.commit.journal_reader import last_entries, settled_end
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.commit.publisher import Publisher
from pipeline.runtime.environment import Environment

__all__ = ["append_entry", "last_of", "settled_last"]

MAX_ATTEMPTS = 3
LOOK_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0)
_NO_IDENTITY = Identity("", "", {}, {}, "")


def append_entry(
    task: TaskId,
    owner: str,
    make: Callable[[JournalEntry], Commit | None],
    environment: Environment,
    settings: WorkerSettings,
) -> int:
    """Append what `make` makes of the last entry; its number. With None nothing is appended, and it is the last one's.

    Raises FencedError when workers take the task back again and again, UnreachableError, FatalTaskError.
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
    """The last entry behind a barrier, and the journal's end. Raises StaleReadError when no reader sees that far.

    Each look has a reader of its own: a new one may find another broker.
    """
    pauses = iter(LOOK_PAUSES_S)
    while True:
        with closing(environment.journals()) as reader:
            try:
                end = settled_end(task, environment, settings, publisher.fence, publisher.known_end)
                start = reader.bounds(task.journal).start
                return _last(task, reader, JournalBounds(start, end, end)), end
            except RetriableError:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
        environment.clock.sleep(pause_s)


def last_of(task: TaskId, reader: JournalReader) -> JournalEntry:
    """A task's last entry. Raises FatalTaskError when there is none."""
    return _last(task, reader, reader.bounds(task.journal))


def _last(task: TaskId, reader: JournalReader, bounds: JournalBounds) -> JournalEntry:
    entries = last_entries(task.journal, reader, bounds, 1)
    if not entries:
        raise FatalTaskError(
            f"the journal of task {task} holds no entry",
            hint="start a worker; if the group existed before: runbooks/journal-lost.md",
        )
    return entries[0]


class _NoStore:
    """The state is wherever the task's worker is; its next restore reads the entry there."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing is held."""


def _applied(head: JournalEntry) -> AppliedPosition:
    """What no store keeps needs no identity."""
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

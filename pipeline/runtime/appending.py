"""Appends one entry to a task's journal from outside of its worker: a reset, a retirement.

    1 fence the task: whoever runs it can commit nothing any more
    2 the journal's end, settled, and the last entry
    3 commit the entry behind it

A crash before 3 leaves the task as it was, fenced, and its worker takes it up again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.config import WorkerSettings
from pipeline.core.journal import Identity, JournalEntry
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import FatalTaskError, FencedError, SupersededError
from pipeline.ports import JournalReader
from pipeline.runtime.journal import last_entries, settled_end
from pipeline.runtime.publisher import Commit, Publisher
from pipeline.runtime.world import World

__all__ = ["append_entry", "last_of"]

MAX_ATTEMPTS = 3
_NO_IDENTITY = Identity("", "", {}, {}, "")


def append_entry(
    task: TaskId,
    owner: str,
    make: Callable[[JournalEntry], Commit | None],
    world: World,
    settings: WorkerSettings,
) -> int:
    """Append what `make` makes of the last entry; its number. With None nothing is appended, and it is the last one's.

    Raises FencedError when workers take the task back again and again, UnreachableError, FatalTaskError.
    """
    attempt = 0
    while True:
        attempt += 1
        publisher = Publisher(task, owner, world, settings)
        reader = world.journals()
        try:
            publisher.stop_waiting()
            publisher.fence()  # 1
            settled_end(task, reader, world, settings, publisher.fence)  # 2
            head = last_of(task, reader)
            commit = make(head)
            if commit is None:
                return head.entry.seq
            publisher.take(_NoStore(), head, _applied(head))
            return publisher.publish(commit).seq  # 3
        except (FencedError, SupersededError):
            if attempt == MAX_ATTEMPTS:
                raise
        finally:
            reader.close()
            publisher.close()


def last_of(task: TaskId, reader: JournalReader) -> JournalEntry:
    """A task's last entry. Raises FatalTaskError when there is none."""
    entries = last_entries(task.journal, reader, reader.bounds(task.journal), 1)
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

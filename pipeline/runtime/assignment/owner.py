"""The owner of a task, according to its journal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.membership import Owner
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.ports import Pending
from pipeline.runtime.commit.journal_reader import last_entries, read_entries
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.restore import PROCESS

__all__ = ["find_owner", "owner_after"]

# A fenced worker waits longer than an acquire takes before it reads the new owner.
FENCED_WAIT_S = (1.5, 3.0)

# Without a start offset, an acquire entry further back than this is not searched.
LOOK_BACK = 100


def find_owner(
    task: TaskId, applied: AppliedPosition | None, environment: Environment
) -> Pending[Owner | None]:
    """Find the owner after a pause, on the executor."""
    wait_s = environment.random.uniform(*FENCED_WAIT_S)

    def look() -> Owner | None:
        environment.clock.sleep(wait_s)
        return owner_after(task, applied, environment)

    return environment.executor.submit(look)


def owner_after(task: TaskId, applied: AppliedPosition | None, environment: Environment) -> Owner | None:
    """The last owner that acquired `task` after `applied`, or recently; None if there is none.

    Raises UnreachableError.
    """
    with closing(environment.journals()) as reader:
        bounds = reader.bounds(task.journal)
        if applied is not None and applied.offset >= bounds.start:
            return owner_in(
                entry
                for entry in read_entries(task, reader, applied.offset, bounds.stable_end, None)
                if entry.entry.seq > applied.seq
            )
        lately = last_entries(task.journal, reader, bounds, LOOK_BACK)
        return owner_in(entry for entry in lately if applied is None or entry.entry.seq > applied.seq)


def owner_in(entries: Iterable[JournalEntry]) -> Owner | None:
    """The owner in the last acquire entry; released if a release entry follows. Keeps one entry in memory at a time."""
    owner: Owner | None = None
    for entry in entries:
        kind, body = entry.entry.kind, entry.entry
        if kind is EntryKind.ACQUIRE:
            owner = Owner(body.seq, body.owner, body.extra.get(PROCESS, b"").decode())
        elif kind is EntryKind.RELEASE:
            owner = Owner(body.seq, body.owner, owner.process if owner is not None else "", released=True)
    return owner

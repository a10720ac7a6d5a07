"""Who has a task, as its journal says."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from pipeline.core.journal import EntryKind, JournalEntry
from pipeline.core.membership import Owner
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.ports import Pending
from pipeline.runtime.commit.journal_reader import last_entries, read_entries
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.restore import PROCESS

__all__ = ["find_owner", "owner_after"]

# A fenced worker waits longer than an acquire takes before it looks who fenced it.
FENCED_WAIT_S = (1.5, 3.0)

# Without a place to begin at, an acquire entry further back than this is not looked for.
LOOK_BACK = 100


def find_owner(
    task: TaskId, applied: AppliedPosition | None, environment: Environment
) -> Pending[Owner | None]:
    """Look for the owner in a while, beside the processing thread."""
    wait_s = environment.random.uniform(*FENCED_WAIT_S)

    def look() -> Owner | None:
        environment.clock.sleep(wait_s)
        return owner_after(task, applied, environment)

    return environment.executor.submit(look)


def owner_after(task: TaskId, applied: AppliedPosition | None, environment: Environment) -> Owner | None:
    """The last to acquire `task` after `applied`, or lately; None when nobody did. Raises UnreachableError."""
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
    """Whom the last acquire entry names; released when a release entry follows. Holds one entry at a time."""
    owner: Owner | None = None
    for entry in entries:
        kind, body = entry.entry.kind, entry.entry
        if kind is EntryKind.ACQUIRE:
            owner = Owner(body.seq, body.owner, body.extra.get(PROCESS, b"").decode())
        elif kind is EntryKind.RELEASE:
            owner = Owner(body.seq, body.owner, owner.process if owner is not None else "", released=True)
    return owner

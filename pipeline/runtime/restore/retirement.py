"""Retirement of an app that another app has replaced: an entry in its journals, after which no worker continues.

A worker of a retired app is refused when it starts, and a task when it is restored, by the last entry of its journal.
(A release that does not know such entries treats the journal as damaged and fails the task, so it does not continue
either.)

`retire` marks the tasks one by one. It starts with those of partition 0, which each start of a worker checks. `revive`
works in the reverse order. A crash in between leaves the app retired, and the same command completes the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime

from pipeline.config import WorkerSettings
from pipeline.core.journal_format import Entry, EntryKind, JournalEntry
from pipeline.core.names import GroupId, TaskId
from pipeline.errors import ConfigError, FatalTaskError, RetriableError, UnreachableError
from pipeline.runtime.commit.admin_entry import append_entry
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment

__all__ = ["refuse_retired", "retire", "retired_error", "retired_since", "revive", "successor_of"]

_SUCCESSOR = "successor"
_READS = 3


def retire(
    tasks: Iterable[TaskId], successor: str, owner: str, environment: Environment, settings: WorkerSettings
) -> Sequence[TaskId]:
    """Mark tasks as replaced by app `successor`.

    Returns those that were not yet. Raises the errors of `append_entry`.
    """
    done = []

    def make(last: JournalEntry) -> Commit | None:
        if last.entry.kind is EntryKind.RETIRE:
            return None
        done.append(task)
        return Commit(EntryKind.RETIRE, dict(last.entry.positions), extra={_SUCCESSOR: successor.encode()})

    for task in sorted(tasks, key=lambda task: task.number):
        append_entry(task, owner, make, environment, settings)
    return done


def revive(
    tasks: Iterable[TaskId], owner: str, environment: Environment, settings: WorkerSettings
) -> Sequence[TaskId]:
    """Remove the marks. Returns the tasks that had one. They continue from their positions."""
    done = []

    def make(last: JournalEntry) -> Commit | None:
        if last.entry.kind is not EntryKind.RETIRE:
            return None
        done.append(task)
        return Commit(EntryKind.RELEASE, dict(last.entry.positions))

    for task in sorted(tasks, key=lambda task: -task.number):
        append_entry(task, owner, make, environment, settings)
    return done


def refuse_retired(group: GroupId, environment: Environment) -> None:
    """Raise ConfigError if the group's app is retired. An unreadable journal is ignored here; its task reports it."""
    if group.journal_topic not in environment.cluster.describe([group.journal_topic]):
        return
    task = TaskId(*group, 0)
    entry: Entry | None = None
    unanswered: UnreachableError | None = None
    for _ in range(_READS):
        # Each attempt uses a new client: a broker may still return the entry from before the app was revived.
        try:
            with closing(environment.journals()) as reader:
                last = last_entry(task.journal, reader)
        except RetriableError:
            continue  # it was truncated meanwhile
        except UnreachableError as error:
            unanswered = error
            continue
        except FatalTaskError:
            return
        if last is None or last.entry.kind is not EntryKind.RETIRE:
            return
        entry = last.entry
    if entry is not None:
        raise retired_error(task, entry)
    if unanswered is not None:
        raise unanswered


def retired_error(task: TaskId, entry: Entry) -> ConfigError:
    """The error for a task whose journal ends with this entry."""
    return ConfigError(
        f"app {task.app} was retired at {retired_since(entry)}: app {successor_of(entry)} has taken its place",
        hint=f"start workers of that app; if {task.app} should run again: pipeline migrate revive {task.app}",
    )


def successor_of(entry: Entry) -> str:
    """The app that replaced it."""
    return entry.extra.get(_SUCCESSOR, b"").decode(errors="replace")


def retired_since(entry: Entry) -> str:
    """The time of the retirement, for people."""
    return f"{datetime.fromtimestamp(entry.wall_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"

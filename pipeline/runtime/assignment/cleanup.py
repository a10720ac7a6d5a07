"""Removes the states of tasks that have moved to another worker and have not returned.

A state that is kept when its task moves makes a return fast. After `state_cleanup_delay_s` it only uses disk space.
(Kafka Streams has the same rule, `state.cleanup.delay.ms`.) A state is removed only if all of these hold:

    its path is that of a task of this app; nothing else in the directory is considered
    the task is not running, restored, a standby or closing here, and has not failed here
    according to the notes, a live worker with another id has owned it for the whole delay
    the journal's last entry is that worker's, at or after the acquire entry in the notes

    1 check       at the journal's end, on the executor
    2 put away   rename the state's directory, on the processing thread, which starts all restores
    3 remove     the renamed directory, on the executor

A crash before 2 changes nothing. A crash after it leaves an unused directory, which the next start removes. The delay
restarts in each process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple

from pipeline.core.journal_format import EntryKind
from pipeline.core.membership import Roster
from pipeline.core.names import TaskId
from pipeline.core.notes import Owner
from pipeline.errors import PipelineError
from pipeline.ports import Pending, error_fields, task_fields
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.runtime.environment import Environment

__all__ = ["StateCleanup"]

INTERVAL_S = 5.0


class _OwnerCheck(NamedTuple):
    """A check in progress whether the journal's last owner is `owner`."""

    task: TaskId
    owner: Owner
    agrees: Pending[bool]


class StateCleanup:
    """Processing thread only. `tasks`: those with a state. `me`: this worker's id. `delay_s`: 0 removes nothing."""

    def __init__(self, tasks: Iterable[TaskId], me: str, environment: Environment, delay_s: float) -> None:
        self._tasks = list(tasks) if delay_s else []
        self._me = me
        self._environment = environment
        self._delay_s = delay_s
        self._since_s: dict[TaskId, float] = {}  # inf: there is no state on this disk
        self._next_s = 0.0
        self._pending_check: _OwnerCheck | None = None
        self._removal: tuple[TaskId, Pending[None]] | None = None

    def turn(self, here: Callable[[], Collection[TaskId]], roster: Roster) -> None:
        """Do what is due, one state at a time.

        `here`: the tasks that this worker runs, restores or keeps as standby.
        """
        now = self._environment.clock.monotonic_s()
        if self._removal is not None and self._removal[1].done():
            self._end_removal()
        if self._pending_check is not None and self._pending_check.agrees.done():
            check, self._pending_check = self._pending_check, None
            self._since_s[check.task] = now  # whatever the outcome is
            self._put_away(check, here(), roster)
        if now < self._next_s or not self._tasks:
            return
        self._next_s = now + INTERVAL_S
        self._observe(here(), roster, now)
        if self._pending_check is None and self._removal is None:
            self._find_owner(roster, now)

    def _observe(self, here: Collection[TaskId], roster: Roster, now: float) -> None:
        for task in self._tasks:
            if task not in here and self._is_anothers(task, roster):
                self._since_s.setdefault(task, now)
            else:
                self._since_s.pop(task, None)

    def _is_anothers(self, task: TaskId, roster: Roster) -> bool:
        owner = roster.owners.get(task)
        return owner is not None and owner.worker != self._me and roster.is_running(task)

    def _find_owner(self, roster: Roster, now: float) -> None:
        for task, since_s in self._since_s.items():
            if now - since_s < self._delay_s:
                continue
            if not self._has_state(task):
                self._since_s[task] = math.inf
                continue
            owner = roster.owners[task]
            agrees = self._environment.executor.submit(
                partial(_journal_agrees, task, owner, self._environment)
            )  # 1
            self._pending_check = _OwnerCheck(task, owner, agrees)
            return

    def _has_state(self, task: TaskId) -> bool:
        """Whether there is a state to remove. One that cannot be read stays, and is logged once."""
        try:
            return self._environment.stores.exists(task)
        except PipelineError as error:
            self._environment.log.warning(
                "local_state_not_deleted", **task_fields(task), **error_fields(error)
            )
            return False

    def _put_away(self, check: _OwnerCheck, here: Collection[TaskId], roster: Roster) -> None:
        task, log = check.task, self._environment.log
        try:
            agrees = check.agrees.result()
            if not agrees or task in here or not self._is_anothers(task, roster):
                return
            remove = self._environment.stores.put_away(task)  # 2
        except PipelineError as error:
            log.info("local_state_not_deleted", **task_fields(task), **error_fields(error))
            return
        log.info(
            "local_state_deleted",
            **task_fields(task),
            owner=check.owner.worker,
            reason=f"another worker has had the task for {self._delay_s:.0f} s",
        )
        self._removal = task, self._environment.executor.submit(remove)  # 3

    def _end_removal(self) -> None:
        if self._removal is None:
            return
        (task, removal), self._removal = self._removal, None
        try:
            removal.result()
        except PipelineError as error:
            self._environment.log.warning(
                "local_state_not_deleted", **task_fields(task), **error_fields(error)
            )


def _journal_agrees(task: TaskId, owner: Owner, environment: Environment) -> bool:
    reader = environment.journals()
    try:
        last = last_entry(task.journal, reader)
    finally:
        reader.close()
    if last is None:
        return False
    entry = last.entry
    return (
        entry.owner == owner.worker
        and entry.seq >= owner.seq
        and entry.kind not in {EntryKind.RELEASE, EntryKind.RETIRE}
    )

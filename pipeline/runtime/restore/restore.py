"""Restore: make a task's local state equal to its journal's end, and acquire the task.

    1 fence: init first, then read
    2 the journal's end, settled
    3 choose the state to start from (runtime/restore/restore_source.py)
    4 replay the entries after it, in order, and store the applied position on the way
    5 commit the acquire entry, which contains the upgraded rows of tables whose type has changed

A crash at any step leaves the journal as it was and a local state at some applied position; the next restore
starts from that. No handler runs.

The fence does not make the reads of 2 to 4 current (`transactions/proof.py`). The acquire entry proves them;
otherwise it is aborted and 2 starts again, with an end at or after that entry's offset. A conclusion that ends the
restore, or sets the local state aside, is accepted only if 2 to 4 reach it again after a barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.api.declarations import DeclaredTable
from pipeline.config import WorkerSettings
from pipeline.core.dead_letters import acquired_identity
from pipeline.core.entry_body import reset_partitions, row_prefixes
from pipeline.core.inputs import TaskInputs, row_prefix
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import AppliedPosition, after, encode_position
from pipeline.core.recovery import Start, check_identity
from pipeline.core.recovery_time import RestoreWork
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    InvariantError,
    PipelineError,
    RetriableError,
    SupersededError,
    TruncatedError,
)
from pipeline.ports import Attempts, JournalReader, Step, Store, error_fields, growing, task_fields
from pipeline.runtime.commit.commit_protocol import Publisher
from pipeline.runtime.commit.journal_reader import read_entries, settled_end
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.progress import RestoreProgress
from pipeline.runtime.restore.restore_source import RestoreSource, UnprovenError, choose
from pipeline.runtime.restore.retirement import retired_error
from pipeline.runtime.restore.upgrade import upgraded_rows

__all__ = ["PROCESS", "RestoredState", "apply_entries", "catch_up", "restore"]

PROCESS = "process"  # in an acquire entry's extra: the owner's process

REPLAY_BATCH_BYTES = 4 * 1024 * 1024
# A new plan is made if truncation overtook one, or a broker returned less than the leader has.
MAX_PLANS = 6
PLAN_PAUSES_S = (0.1, 2.0)


@dataclass(frozen=True, slots=True)
class RestoredState:
    """A live task: its publisher owns the fence, and `store` is at `applied`."""

    publisher: Publisher
    store: Store
    applied: AppliedPosition
    replayed: int
    start: str
    seconds: float
    proof_s: float
    copy_s: float = 0.0  # of a checkpoint
    work: RestoreWork | None = None


def restore(
    task: TaskId,
    owner: str,
    identity: Identity,
    start_positions: Callable[[Sequence[str]], Mapping[str, int]],
    environment: Environment,
    settings: WorkerSettings,
    tables: Mapping[str, DeclaredTable[Any, Any]],
    *,
    process: str = "",
    copy: Store | None = None,
    progress: RestoreProgress | None = None,
) -> RestoredState:
    """Restore and acquire `task`. `start_positions`: returns the start positions of inputs that have none yet, by name.

    `tables`: those of the group, by name. `process`: the owner's process, for the acquire entry. `copy`: the open local
    state that `catch_up` returned. `progress`: is updated.

    Raises FencedError, FatalTaskError, ConfigError, CorruptStateError, UnreachableError, CheckpointStoreError.
    """
    progress = progress if progress is not None else RestoreProgress(task, environment.clock, environment.log)
    run = _Restore(task, owner, identity, start_positions, environment, settings, tables, process, progress)
    return run.run(copy)


class _Restore:
    """One restore of one task."""

    def __init__(
        self,
        task: TaskId,
        owner: str,
        identity: Identity,
        start_positions: Callable[[Sequence[str]], Mapping[str, int]],
        environment: Environment,
        settings: WorkerSettings,
        tables: Mapping[str, DeclaredTable[Any, Any]],
        process: str,
        progress: RestoreProgress,
    ) -> None:
        self._task = task
        self._identity = identity
        self._start_positions = start_positions
        self._environment = environment
        self._settings = settings
        self._tables = tables
        self._process = process
        self._progress = progress
        self._inputs = TaskInputs(task.number, identity.tasks).all(
            {topic: facts.partitions for topic, facts in identity.inputs.items()}
        )
        self._publisher = Publisher(task, owner, environment, settings)
        self._proven = False  # whether a barrier was written, so that a conclusion may be accepted

    def run(self, copy: Store | None) -> RestoredState:
        began = self._environment.clock.monotonic_s()
        publisher = self._publisher
        plans = Attempts(self._environment.clock, MAX_PLANS, growing(*PLAN_PAUSES_S))
        try:
            publisher.fence()  # 1
            self._environment.steps.reached(Step.AFTER_FENCE, self._task)
            while True:
                opened, copy = copy, None
                try:
                    read = self._read(opened)  # 2, 3, 4
                    applied = publisher.publish(self._acquire(read))  # 5
                except (RetriableError, SupersededError) as error:
                    publisher.close_store()
                    if not plans.pause():
                        raise _given_up(self._task, error) from error
                    self._environment.log.warning(
                        "restore_restarted", **task_fields(self._task), **error_fields(error)
                    )
                except _Verdict as verdict:
                    publisher.close_store()
                    self._environment.log.info(
                        "restore_failure_rechecked", **task_fields(self._task), reason=str(verdict)
                    )
                    publisher.barrier()
                    self._proven = True
                else:
                    self._environment.steps.reached(Step.AFTER_ACQUIRE, self._task)
                    seconds = self._environment.clock.monotonic_s() - began
                    return RestoredState(
                        publisher,
                        read.store,
                        applied,
                        read.replayed,
                        read.start,
                        seconds,
                        publisher.proof_s,
                        self._progress.copy_s,
                        self._progress.work(),
                    )
        except BaseException:
            publisher.close()
            if copy is not None:
                copy.close()
            raise

    def _read(self, copy: Store | None) -> _Read:
        """Steps 2 to 4, with a new reader, which may reach another broker.

        Until a barrier was written, raises _Verdict for a conclusion that ends the restore.
        """
        task, environment, publisher = self._task, self._environment, self._publisher
        reader = environment.journals()
        try:
            end = settled_end(task, environment, self._settings, publisher.fence, publisher.known_end)  # 2
            environment.steps.reached(Step.AFTER_END, task)
            opened, copy = copy, None
            cluster_id = self._identity.cluster_id
            chosen = choose(
                task, reader, end, cluster_id, environment, self._progress, opened, proven=self._proven
            )  # 3
            applied, head, replayed = _replay(task, reader, end, chosen, environment, self._progress)  # 4
            self._progress.ended()
            publisher.take(chosen.store, head, applied, end)
            changed = self._check(head, applied)
            return _Read(chosen.store, applied, replayed, chosen.plan.start.value, changed)
        except (UnprovenError, FatalTaskError) as error:
            if self._proven:
                raise
            raise _Verdict(error.message) from error
        finally:
            reader.close()
            if copy is not None:
                copy.close()

    def _check(self, head: JournalEntry, applied: AppliedPosition) -> list[str]:
        """The tables whose type has changed. Raises ConfigError if the history must not continue, or _Verdict."""
        task = self._task
        try:
            if head.entry.kind is EntryKind.RETIRE:
                raise retired_error(task, head.entry)
            upgrades = {n: t.key_fingerprint for n, t in self._tables.items() if t.upgrade is not None}
            return check_identity(f"task {task}", applied.identity, self._identity, upgrades)
        except ConfigError as error:
            if self._proven:
                raise
            raise _Verdict(error.message) from error

    def _acquire(self, read: _Read) -> Commit:
        applied, environment = read.applied, self._environment
        tables = [self._tables[name] for name in read.changed]
        partitions = row_prefixes(applied.identity, self._task.number)
        rows = upgraded_rows(self._task, read.store, tables, applied.identity.tables, partitions, environment)
        environment.steps.reached(Step.BEFORE_ACQUIRE, self._task)
        acquired = acquired_identity(applied, self._identity, self._ends_before)
        positions = {**applied.positions, **self._begun(applied, acquired)}
        extra = {PROCESS: self._process.encode()}
        return Commit(EntryKind.ACQUIRE, positions, rows, identity=acquired, extra=extra)

    def _begun(self, applied: AppliedPosition, acquired: Identity) -> Mapping[str, int]:
        """The positions of inputs that are read for the first time."""
        names = [
            name
            for name, place in self._inputs.items()
            if name not in applied.positions or acquired.inputs[place.topic].replaced
        ]
        return self._start_positions(names) if names else {}

    def _ends_before(self, topic: str, position: int) -> bool:
        """Reads the end with a barrier: with the end of a stale leader, replays would be handled twice."""
        return self._publisher.end_of(TopicPartition(topic, self._task.number)) < position


def _given_up(task: TaskId, error: PipelineError) -> PipelineError:
    """The error of a restore that was overtaken each time. Only truncation does not end by itself."""
    if not isinstance(error, TruncatedError):
        return error
    return FatalTaskError(
        f"the journal of task {task} was truncated during {MAX_PLANS} restores in a row: {error.message}",
        hint="find out what deletes its records, and check its retention: runbooks/journal-lost.md",
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """The result of steps 2 to 4: an open state that equals the journal as read. `changed`: the tables to upgrade."""

    store: Store
    applied: AppliedPosition
    replayed: int
    start: str
    changed: list[str]


class _Verdict(Exception):  # noqa: N818 - never leaves this module
    """A read ends the restore or sets the local state aside, and was not proven to be current."""


def catch_up(
    task: TaskId, cluster_id: str, copy: Store | None, environment: Environment
) -> tuple[Store, int, Start]:
    """Update the standby copy of a task that another worker runs to the current end of its journal, without a fence.

    Returns the open state, the number of replayed entries, and what they were applied to. `copy`: the state that the
    last call returned; it is closed if this call fails. No read here is proven, so a local state is never set aside.
    Raises the errors of `restore`, RetriableError and UnprovenError.
    """
    reader = environment.journals()
    progress = RestoreProgress(task, environment.clock, environment.log)
    try:
        end = reader.bounds(task.journal).stable_end
        opened, copy = copy, None
        chosen = choose(task, reader, end, cluster_id, environment, progress, opened, proven=False)
        _, _, replayed = _replay(task, reader, end, chosen, environment, progress)
        return chosen.store, replayed, chosen.plan.start
    finally:
        reader.close()
        if copy is not None:
            copy.close()


def _replay(
    task: TaskId,
    reader: JournalReader,
    end: int,
    chosen: RestoreSource,
    environment: Environment,
    progress: RestoreProgress,
) -> tuple[AppliedPosition, JournalEntry, int]:
    """Apply the entries that follow.

    If that fails, the store is closed. Raises RetriableError and errors of the read.
    """
    try:
        environment.steps.reached(Step.AFTER_CHOICE, task)
        return _apply_entries(task, reader, end, chosen, environment, progress)
    except BaseException:
        chosen.store.close()
        raise


def _apply_entries(
    task: TaskId,
    reader: JournalReader,
    end: int,
    chosen: RestoreSource,
    environment: Environment,
    progress: RestoreProgress,
) -> tuple[AppliedPosition, JournalEntry, int]:
    _, plan, head = chosen
    progress.replaying(end - plan.offset)
    entries = read_entries(task, reader, plan.offset, end, head)
    return apply_entries(task, entries, chosen, environment, progress)


def apply_entries(
    task: TaskId,
    entries: Iterable[JournalEntry],
    chosen: RestoreSource,
    environment: Environment,
    progress: RestoreProgress,
) -> tuple[AppliedPosition, JournalEntry, int]:
    """Apply `entries`, which follow the state in `chosen`, in batches, each with its applied position.

    Returns:
        The applied position, the last entry, and the number of applied entries.
    """
    store, plan, head = chosen
    applied = plan.position
    writes: dict[bytes, bytes | None] = {}
    size = 0
    for entry in entries:
        before, applied = applied, after(applied, entry)
        head = entry
        progress.replayed(entry.next_offset - plan.offset, entry.size)
        if entry.entry.kind is EntryKind.RESET:
            partitions = reset_partitions(entry.entry)
            if partitions is not None and before is not None and writes:
                store.apply(writes, encode_position(before))  # those of the other partitions are kept
                environment.steps.reached(Step.DURING_REPLAY, task)
            store.clear(encode_position(applied), [row_prefix(each) for each in partitions or ()])
            environment.steps.reached(Step.DURING_REPLAY, task)
            writes, size = {}, 0
        writes.update(entry.entry.delta)
        size += entry.next_offset - entry.offset + sum(map(len, entry.entry.delta)) * 2
        if size >= REPLAY_BATCH_BYTES:
            store.apply(writes, encode_position(applied))
            environment.steps.reached(Step.DURING_REPLAY, task)
            writes, size = {}, 0
    if applied is None or head is None:
        raise InvariantError(f"task {task}: nothing was replayed into an empty state")
    if progress.replayed_entries:
        store.apply(writes, encode_position(applied))
    environment.steps.reached(Step.AFTER_REPLAY, task)
    return applied, head, progress.replayed_entries

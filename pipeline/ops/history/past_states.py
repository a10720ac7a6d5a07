"""Restores the state of a task as it was after an earlier entry: `restore_at`; compares states: `state_hash`.

    1 the journal's end, requested through every broker
    2 choose the start: the newest kept checkpoint that is not after the requested entry, or the journal's genesis entry
    3 copy the checkpoint to a directory of the caller
    4 replay the following entries up to the requested one

Reads only: no fence, no transaction, and the task's local state is not opened. Entries are immutable, and each one that
is replayed is verified against the chain, so a live task may continue meanwhile. A broker that is not the leader any
more may know fewer entries, but never others: step 1 finds out, and the read is repeated with another client.

How far back: to genesis while the journal still has that entry; otherwise to the oldest kept checkpoint, because the
worker deletes the entries before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol, TypeVar

from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.core.records import iso_time
from pipeline.core.recovery import Candidate, RestorePlan, Start
from pipeline.errors import CheckpointStoreError, DamagedCheckpointError, InputError, RetriableError
from pipeline.ports import JournalReader, Store, Stores, error_fields, task_fields
from pipeline.runtime.commit.journal_reader import first_entry, read_entries, without_delta
from pipeline.runtime.environment import Environment, NoSteps
from pipeline.runtime.restore.progress import RestoreProgress
from pipeline.runtime.restore.restore import apply_entries
from pipeline.runtime.restore.restore_source import RestoreSource, from_checkpoint, registered

__all__ = [
    "AtEntry",
    "AtTime",
    "EntryNotWrittenError",
    "Moment",
    "PastState",
    "journal_end",
    "restore_at",
    "state_hash",
    "with_reader",
]

T = TypeVar("T")

PAUSES_S = (0.1, 0.5, 1.0, 2.0)  # before the next attempt, if truncation or a stale leader ended one
_HASH_BYTES = 16


class EntryNotWrittenError(InputError):
    """The journal has no such entry yet, according to the brokers that answered."""


class ScannedState(Protocol):
    """What `state_hash` needs of a state: a `Store`, or a read-only view of the state that a worker has open."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


def state_hash(state: ScannedState) -> str:
    """A hash of all rows of a task's state: the keys and values of all tables, and those of dedup tables.

    Depends only on the rows, not on the files that hold them: two states of a task at the same entry have the same
    hash, whether one is live, restored from a checkpoint, or replayed from the journal's first entry. The applied
    position is not included.

    Args:
        state: An open state. The scan is a consistent view; an `apply` at the same time does not change the result.

    Returns:
        32 hexadecimal digits.

    Raises:
        CorruptStateError: The state cannot be read.
    """
    digest = blake2b(digest_size=_HASH_BYTES)
    for key, value in state.scan(b""):
        digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(8, "big"))
        digest.update(value)
    return digest.hexdigest()


class Moment(Protocol):
    """A moment in the history of a task."""

    def contains(self, seq: int, wall_ms: int) -> bool:
        """Whether the entry with this seq and this commit time belongs to the history up to this moment."""
        ...

    def is_last(self, seq: int) -> bool:
        """Whether no entry after this one can belong to it."""
        ...


@dataclass(frozen=True, slots=True)
class AtEntry:
    """After the entry `seq`."""

    seq: int

    def contains(self, seq: int, wall_ms: int) -> bool:  # noqa: ARG002 - as the protocol says
        return seq <= self.seq

    def is_last(self, seq: int) -> bool:
        return seq >= self.seq

    def __str__(self) -> str:
        return f"entry {self.seq:,}"


@dataclass(frozen=True, slots=True)
class AtTime:
    """Before the first entry that was committed after `time_ms`, by the clock of the worker that committed it."""

    time_ms: int
    text: str = ""

    def contains(self, seq: int, wall_ms: int) -> bool:  # noqa: ARG002 - as the protocol says
        return wall_ms <= self.time_ms

    def is_last(self, seq: int) -> bool:  # noqa: ARG002 - as the protocol says
        return False

    def __str__(self) -> str:
        return self.text or f"time {self.time_ms}"


@dataclass(frozen=True, slots=True)
class PastState:
    """A restored state. Close `store` before its directory is deleted.

    `entry`: the last entry that the state contains, without its table writes. `applied`: the position after it, with
    the task's identity at that time. `start`: the checkpoint that was copied; None if the journal was replayed from
    genesis. `replayed`: the number of entries after it. `oldest`: the oldest entry whose state can be restored now.
    """

    store: Store
    applied: AppliedPosition
    entry: JournalEntry
    start: Candidate | None
    replayed: int
    oldest: JournalEntry


def restore_at(task: TaskId, at: Moment, environment: Environment, stores: Stores) -> PastState:
    """Restore the state of a task as it was at an earlier entry, from a checkpoint and the journal, into `stores`.

    The live task is not disturbed: nothing is fenced, written to Kafka, or read from its local state. The result equals
    the task's own state at that entry in every row, so `state_hash` of both is equal.

    Args:
        task: The task. Its worker may be running.
        at: `AtEntry(seq)`, or `AtTime(epoch_ms)`.
        environment: For Kafka and the checkpoint store. Its `stores` are not used.
        stores: Where the state is built: a scratch directory, `RocksStores(directory, cache_bytes)`, without a state of
            this task. After an error it has none either.

    Returns:
        The open state. The caller closes it.

    Raises:
        InputError: The task has no such entry yet, or it is older than what journal and checkpoints can restore. The
            message names the oldest entry that is possible.
        FatalTaskError: The journal is damaged.
        CheckpointStoreError: The state needs a checkpoint, and the store does not answer.
        CorruptStateError: The scratch directory cannot be written.
        UnreachableError: Kafka does not answer.
        RetriableError: The journal was truncated, or read from a stale leader, at each of several attempts.

    Example:
        ```python
        past = restore_at(task, AtEntry(57), environment, RocksStores(scratch, 8 << 20))
        try:
            assert state_hash(past.store) == recorded
        finally:
            past.store.close()
        ```
    """
    if stores.exists(task):
        raise InputError(f"the scratch directory already has a state of task {task}", hint="use an empty one")
    scratch = replace(environment, stores=stores, steps=NoSteps())
    return with_reader(scratch, lambda reader: _restore(task, at, scratch, reader))


def with_reader(environment: Environment, read: Callable[[JournalReader], T]) -> T:
    """Call `read` with a reader, and again with a new one if truncation or a stale leader ends it.

    Raises the last RetriableError after several attempts, and what else `read` raises.
    """
    pauses = iter(PAUSES_S)
    while True:
        try:
            with closing(environment.journals()) as reader:
                return read(reader)
        except RetriableError:
            pause_s = next(pauses, None)
            if pause_s is None:
                raise
            environment.clock.sleep(pause_s)


def journal_end(task: TaskId, reader: JournalReader) -> int:
    """The end of a task's journal for committed readers, according to every broker. Raises UnreachableError."""
    return reader.highest_ends([task.journal])[task.journal]


def _restore(task: TaskId, at: Moment, environment: Environment, reader: JournalReader) -> PastState:
    end = journal_end(task, reader)  # 1
    start = reader.bounds(task.journal).start
    first = first_entry(task, reader, start, end)
    if first is None:
        raise InputError(
            f"the journal of task {task} has no entry",
            hint="a task has entries after the first start of a worker",
        )
    candidates = _usable(task, reader, start, end, environment)  # 2
    oldest = _oldest(task, first, candidates)
    if not at.contains(oldest.entry.seq, oldest.entry.wall_ms):
        raise _too_old(task, at, oldest, first)
    progress = RestoreProgress(task, environment.clock, environment.log)
    chosen, checkpoint = _start(task, at, first, candidates, environment, progress)  # 3
    try:
        entries = _up_to(at, read_entries(task, reader, chosen.plan.offset, end, chosen.head))
        progress.replaying(end - chosen.plan.offset)
        applied, last, replayed = apply_entries(task, entries, chosen, environment, progress)  # 4
        if isinstance(at, AtEntry) and applied.seq < at.seq:
            raise EntryNotWrittenError(
                f"task {task} has no entry {at.seq:,} yet", hint=f"its last entry is {applied.seq:,}"
            )
    except BaseException:
        chosen.store.close()
        environment.stores.destroy(task)
        raise
    return PastState(chosen.store, applied, without_delta(last), checkpoint, replayed, without_delta(oldest))


def _usable(
    task: TaskId, reader: JournalReader, start: int, end: int, environment: Environment
) -> list[Candidate]:
    """The kept checkpoints that match the journal, newest first; none if no store is configured."""
    if environment.checkpoints is None:
        return []
    return [found for found in registered(task, reader, start, end) if found.problem is None]


def _oldest(task: TaskId, first: JournalEntry, candidates: list[Candidate]) -> JournalEntry:
    """The oldest entry whose state can be restored."""
    if first.entry.kind is EntryKind.GENESIS:
        return first
    if not candidates or (found := candidates[-1].found) is None:
        raise InputError(
            f"no past state of task {task} can be restored: its journal begins at entry {first.entry.seq:,}, and there "
            "is no checkpoint to start from",
            hint="set worker.checkpoint_store to the store of the workers, and look at pipeline checkpoints list",
        )
    return found


def _too_old(task: TaskId, at: Moment, oldest: JournalEntry, first: JournalEntry) -> InputError:
    seq, when = oldest.entry.seq, iso_time(oldest.entry.wall_ms)
    why = (
        "its journal begins there"
        if oldest is first
        else "that is its oldest kept checkpoint, and the entries before it were deleted"
    )
    return InputError(
        f"task {task}: {at} is before the oldest state that can be restored, which is entry {seq:,} of {when}: {why}",
        hint=f"the oldest possible is --task {task.number} --at {seq}, or --at {when}",
    )


def _start(
    task: TaskId,
    at: Moment,
    first: JournalEntry,
    candidates: list[Candidate],
    environment: Environment,
    progress: RestoreProgress,
) -> tuple[RestoreSource, Candidate | None]:
    """The newest checkpoint that is not after `at` and can be read; otherwise an empty state before genesis."""
    problem: DamagedCheckpointError | CheckpointStoreError | None = None
    cluster_id = environment.cluster.cluster_id()
    for found in candidates:
        if found.found is None or not at.contains(found.ref.seq, found.found.entry.wall_ms):
            continue
        try:
            return from_checkpoint(task, found, cluster_id, environment, progress), found
        except (DamagedCheckpointError, CheckpointStoreError) as error:
            problem = error
            environment.log.warning(
                "checkpoint_refused", **task_fields(task), seq=found.ref.seq, **error_fields(error)
            )
    if first.entry.kind is EntryKind.GENESIS:
        plan = RestorePlan(Start.EMPTY, first.offset, None)
        return RestoreSource(environment.stores.open(task), plan, None), None
    if isinstance(problem, CheckpointStoreError):
        raise problem
    raise InputError(
        f"no state of task {task} at {at} can be restored: {problem.message if problem else 'no checkpoint'}",
        hint="find damaged objects with pipeline checkpoints verify",
    )


def _up_to(at: Moment, entries: Iterable[JournalEntry]) -> Iterator[JournalEntry]:
    for entry in entries:
        if not at.contains(entry.entry.seq, entry.entry.wall_ms):
            return
        yield entry
        if at.is_last(entry.entry.seq):
            return

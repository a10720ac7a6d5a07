"""Restore: make a task's local state equal to its journal's end, and acquire the task.

    1 fence: init first, then read
    2 the journal's end, settled
    3 choose the state to start from (runtime/choose.py)
    4 replay what follows it, in order, storing the applied position on the way
    5 commit the acquire entry, which carries the rows of tables whose type has changed

A crash at any step leaves the journal as it was and a local state at some applied position; the next restore
starts from that. No handler runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import WorkerSettings
from pipeline.core.journal import Identity, JournalEntry, Kind
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import AppliedPosition, after, encode_position
from pipeline.core.recovery import check_identity
from pipeline.core.replays_input import acquired_identity
from pipeline.declarations import TableDef
from pipeline.errors import FatalTaskError, InvariantError, RetriableError
from pipeline.ports import JournalReader, Step, Store
from pipeline.runtime.choose import Chosen, choose
from pipeline.runtime.journal import read_entries, settled_end
from pipeline.runtime.progress import RestoreProgress
from pipeline.runtime.publisher import Commit, Publisher
from pipeline.runtime.retirement import retired_error
from pipeline.runtime.upgrade import upgraded_rows
from pipeline.runtime.world import World

__all__ = ["PROCESS", "Restored", "catch_up", "restore"]

PROCESS = "process"  # in an acquire entry's extra: which process of its owner

REPLAY_BATCH_BYTES = 4 * 1024 * 1024
MAX_PLANS = 5


@dataclass(frozen=True, slots=True)
class Restored:
    """A task that is live: its publisher owns the fence, `store` stands at `applied`."""

    publisher: Publisher
    store: Store
    applied: AppliedPosition
    replayed: int
    start: str
    seconds: float


def restore(
    task: TaskId,
    owner: str,
    identity: Identity,
    start_positions: Callable[[str], int],
    world: World,
    settings: WorkerSettings,
    tables: Mapping[str, TableDef[Any, Any]],
    *,
    process: str = "",
    copy: Store | None = None,
    progress: RestoreProgress | None = None,
) -> Restored:
    """Restore and acquire `task`. `start_positions`: where to begin a topic that has no position yet.

    `tables`: the group's, by name. `process`: of the owner, for the acquire entry. `copy`: the task's local state,
    open, as `catch_up` left it. `progress`: kept up to date.

    Raises FencedError, FatalTaskError, ConfigError, CorruptStateError, UnreachableError, CheckpointStoreError.
    """
    began = world.clock.monotonic_s()
    progress = progress if progress is not None else RestoreProgress(task, world.clock, world.log)
    publisher = Publisher(task, owner, world, settings)
    reader = world.journals()
    try:
        publisher.fence()  # 1
        world.steps.reached(Step.AFTER_FENCE, task)
        for _ in range(MAX_PLANS):
            end = settled_end(task, reader, world, settings, publisher.fence)  # 2
            world.steps.reached(Step.AFTER_END, task)
            opened, copy = copy, None
            try:
                chosen = choose(task, reader, end, identity.cluster_id, world, progress, opened)  # 3
                store, plan = chosen.store, chosen.plan
                applied, head, replayed = _replay(task, reader, end, chosen, world, progress)  # 4
            except RetriableError:
                continue  # truncation overtook it: plan again
            publisher.take(store, head, applied)
            if head.entry.kind is Kind.RETIRE:
                raise retired_error(task, head.entry)
            upgrades = {name: t.key_fingerprint for name, t in tables.items() if t.upgrade is not None}
            changed = check_identity(f"task {task}", applied.identity, identity, upgrades)
            before = applied.identity.tables
            rows = upgraded_rows(task, store, [tables[name] for name in changed], before, world)
            world.steps.reached(Step.BEFORE_ACQUIRE, task)
            acquired = acquired_identity(applied, identity, _ends_before(task, reader))
            positions = {**applied.positions, **_begun(applied, identity, acquired, start_positions)}
            extra = {PROCESS: process.encode()}
            acquire = Commit(Kind.ACQUIRE, positions, rows, identity=acquired, extra=extra)
            applied = publisher.publish(acquire)  # 5
            world.steps.reached(Step.AFTER_ACQUIRE, task)
            return Restored(
                publisher, store, applied, replayed, plan.start.value, world.clock.monotonic_s() - began
            )
        raise FatalTaskError(
            f"the journal of task {task} was truncated under {MAX_PLANS} restores in a row",
            hint="check its retention: runbooks/journal-lost.md",
        )
    except BaseException:
        publisher.close()
        if copy is not None:
            copy.close()
        raise
    finally:
        reader.close()


def _begun(
    applied: AppliedPosition, found: Identity, acquired: Identity, start_positions: Callable[[str], int]
) -> dict[str, int]:
    """Positions of the topics that are read for the first time."""
    begun = [
        topic for topic in found.inputs if topic not in applied.positions or acquired.inputs[topic].replaced
    ]
    return {topic: start_positions(topic) for topic in begun}


def _ends_before(task: TaskId, reader: JournalReader) -> Callable[[str, int], bool]:
    return lambda topic, position: reader.bounds(TopicPartition(topic, task.partition)).stable_end < position


def catch_up(task: TaskId, cluster_id: str, copy: Store | None, world: World) -> tuple[Store, int]:
    """Make a copy of a task that somebody else runs equal to its journal's end as of now, without a fence.

    Returns the open state and the number of entries replayed. `copy`: what the last call returned; it is closed
    when this one fails. Raises what `restore` raises.
    """
    reader = world.journals()
    progress = RestoreProgress(task, world.clock, world.log)
    try:
        for _ in range(MAX_PLANS):
            end = reader.bounds(task.journal).stable_end
            opened, copy = copy, None
            try:
                chosen = choose(task, reader, end, cluster_id, world, progress, opened)
                _, _, replayed = _replay(task, reader, end, chosen, world, progress)
            except RetriableError:
                continue
            return chosen.store, replayed
        raise FatalTaskError(
            f"the journal of task {task} is truncated faster than it can be followed",
            hint="start the worker again; if it stays so, raise worker.checkpoint_interval_s",
        )
    finally:
        reader.close()


def _replay(
    task: TaskId, reader: JournalReader, end: int, chosen: Chosen, world: World, progress: RestoreProgress
) -> tuple[AppliedPosition, JournalEntry, int]:
    """Apply what follows; where that fails, the store is closed. Raises RetriableError and what reading raises."""
    try:
        world.steps.reached(Step.AFTER_CHOICE, task)
        return _apply_entries(task, reader, end, chosen, world, progress)
    except BaseException:
        chosen.store.close()
        raise


def _apply_entries(
    task: TaskId, reader: JournalReader, end: int, chosen: Chosen, world: World, progress: RestoreProgress
) -> tuple[AppliedPosition, JournalEntry, int]:
    store, plan, head = chosen
    applied = plan.position
    writes: dict[bytes, bytes | None] = {}
    size = 0
    progress.replaying(end - plan.offset)
    for entry in read_entries(task, reader, plan.offset, end, head):
        applied = after(applied, entry)
        head = entry
        progress.replayed(entry.next_offset - plan.offset)
        if entry.entry.kind is Kind.RESET:
            store.clear(encode_position(applied))
            writes, size = {}, 0
        writes.update(entry.entry.delta)
        size += entry.next_offset - entry.offset + sum(map(len, entry.entry.delta)) * 2
        if size >= REPLAY_BATCH_BYTES:
            store.apply(writes, encode_position(applied))
            world.steps.reached(Step.DURING_REPLAY, task)
            writes, size = {}, 0
    if applied is None or head is None:
        raise InvariantError(f"task {task}: nothing was replayed into an empty state")
    if progress.replayed_entries:
        store.apply(writes, encode_position(applied))
    world.steps.reached(Step.AFTER_REPLAY, task)
    return applied, head, progress.replayed_entries

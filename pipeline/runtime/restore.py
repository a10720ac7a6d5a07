"""Restore: make a task's local state equal to its journal's end, and acquire the task.

    1 fence: init first, then read
    2 the journal's end, settled
    3 choose the state to start from (core.recovery.plan_restore)
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
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, after, decode_position, encode_position
from pipeline.core.recovery import JournalFacts, RestorePlan, check_identity, plan_restore
from pipeline.declarations import TableDef
from pipeline.errors import CorruptStateError, FatalTaskError, InvariantError, RetriableError
from pipeline.ports import JournalReader, Step, Store
from pipeline.runtime.journal import first_entry, read_entries, settled_end
from pipeline.runtime.publisher import Commit, Publisher
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
) -> Restored:
    """Restore and acquire `task`. `start_positions`: where to begin a topic that has no position yet.

    `tables`: the group's, by name. `process`: of the owner, for the acquire entry. `copy`: the task's local state,
    open, as `catch_up` left it.

    Raises FencedError, FatalTaskError, ConfigError, CorruptStateError, UnreachableError.
    """
    began = world.clock.monotonic_s()
    publisher = Publisher(task, owner, world, settings)
    reader = world.journals()
    try:
        publisher.fence()  # 1
        world.steps.reached(Step.AFTER_FENCE, task)
        for _ in range(MAX_PLANS):
            end = settled_end(task, reader, world, settings, publisher.fence)  # 2
            world.steps.reached(Step.AFTER_END, task)
            opened, copy = copy, None
            store, plan, head = _choose(task, reader, end, identity.cluster_id, world, opened)  # 3
            try:
                world.steps.reached(Step.AFTER_CHOICE, task)
                applied, head, replayed = _replay(task, reader, end, store, plan, head, world)  # 4
            except RetriableError:
                store.close()  # truncation overtook the replay: plan again
                continue
            except BaseException:
                store.close()
                raise
            publisher.take(store, head, applied)
            upgrades = {name: t.key_fingerprint for name, t in tables.items() if t.upgrade is not None}
            changed = check_identity(f"task {task}", applied.identity, identity, upgrades)
            before = applied.identity.tables
            rows = upgraded_rows(task, store, [tables[name] for name in changed], before, world)
            world.steps.reached(Step.BEFORE_ACQUIRE, task)
            missing = [topic for topic in identity.inputs if topic not in applied.positions]
            positions = {**applied.positions, **{topic: start_positions(topic) for topic in missing}}
            extra = {PROCESS: process.encode()}
            acquire = Commit(Kind.ACQUIRE, positions, rows, identity=identity, extra=extra)
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


def catch_up(task: TaskId, cluster_id: str, copy: Store | None, world: World) -> tuple[Store, int]:
    """Make a copy of a task that somebody else runs equal to its journal's end as of now, without a fence.

    Returns the open state and the number of entries replayed. `copy`: what the last call returned; it is closed
    when this one fails. Raises what `restore` raises.
    """
    reader = world.journals()
    try:
        for _ in range(MAX_PLANS):
            end = reader.bounds(task.journal).stable_end
            opened, copy = copy, None
            store, plan, head = _choose(task, reader, end, cluster_id, world, opened)
            try:
                _, _, replayed = _replay(task, reader, end, store, plan, head, world)
            except RetriableError:
                store.close()
            except BaseException:
                store.close()
                raise
            else:
                return store, replayed
        raise FatalTaskError(f"the journal of task {task} is truncated faster than it can be followed")
    finally:
        reader.close()


def _choose(
    task: TaskId,
    reader: JournalReader,
    end: int,
    cluster_id: str,
    world: World,
    store: Store | None = None,
) -> tuple[Store, RestorePlan, JournalEntry | None]:
    """Open the store that the restore starts from (or use `store`), with the entry that it stands at."""
    local: AppliedPosition | None = None
    damage: str | None = None
    try:
        if store is None and world.stores.exists(task):  # a restore that fails leaves no new directory behind
            store = world.stores.open(task)
        if store is not None:
            data = store.position()
            local = decode_position(data, f"the state of task {task}") if data is not None else None
    except CorruptStateError as error:
        damage = error.message
    try:
        start = reader.bounds(task.journal).start
        at_local = _entry_at(task, reader, local, start, end)
        # A local state that fits needs no look at the journal's beginning, however far back that is.
        fits = at_local is not None and local is not None and at_local.chain == local.chain
        first = at_local if fits else first_entry(task, reader, start, end)
        plan = plan_restore(str(task), local, damage, cluster_id, JournalFacts(first, at_local, end))
    except BaseException:
        if store is not None:
            store.close()
        raise
    if plan.set_aside is not None:
        if store is not None:
            store.close()
        place = world.stores.set_aside(task)
        world.log.warning("local_state_set_aside", task=str(task), reason=plan.set_aside, kept_at=place)
        store = None
    if store is None:
        store = world.stores.open(task)
    return store, plan, at_local if plan.position is not None else None


def _entry_at(
    task: TaskId, reader: JournalReader, local: AppliedPosition | None, start: int, end: int
) -> JournalEntry | None:
    """The journal's entry exactly where the local state says its last one is."""
    if local is None or not start <= local.offset < end:
        return None
    try:
        entry = first_entry(task, reader, local.offset, local.next_offset)
    except FatalTaskError:
        return None  # no entry begins here: another history; a replay verifies every entry it applies
    return entry if entry is not None and entry.offset == local.offset else None


def _replay(
    task: TaskId,
    reader: JournalReader,
    end: int,
    store: Store,
    plan: RestorePlan,
    head: JournalEntry | None,
    world: World,
) -> tuple[AppliedPosition, JournalEntry, int]:
    applied = plan.position
    writes: dict[bytes, bytes | None] = {}
    size = 0
    replayed = 0
    for entry in read_entries(task, reader, plan.offset, end, head):
        applied = after(applied, entry)
        head = entry
        replayed += 1
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
    if replayed:
        store.apply(writes, encode_position(applied))
    world.steps.reached(Step.AFTER_REPLAY, task)
    return applied, head, replayed

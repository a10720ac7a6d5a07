"""Compares the checkpoints in a store with those that a task's journal registers, whether workers run or not.

Only `prune` changes the store: it deletes the objects that a worker's next checkpoint would delete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.core.checkpoint import Listed, Manifest, plan_cleanup
from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.names import GroupId, TaskId, checkpoint_clock, checkpoint_prefix
from pipeline.errors import CheckpointStoreError, DamagedCheckpointError
from pipeline.ports import CheckpointStore, JournalReader
from pipeline.runtime.checkpoints.upload import list_objects
from pipeline.runtime.restore.restore_source import read_manifest, registered, verified

__all__ = ["Holding", "Inventory", "inventory_of", "prune", "store_time_ms", "verify"]


@dataclass(frozen=True, slots=True)
class Holding:
    """One registered checkpoint. `problem`: why it cannot be restored, as far as it was checked; None if it can."""

    ref: CheckpointRef
    manifest: Manifest | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The checkpoints of one task, newest first.

    `strays`: objects that no kept checkpoint refers to, by name, with sizes and ages. `prunable`: the names of those
    that can be deleted. `journal_start`, `journal_end`: offsets. `partitions`: those of the task, if known.
    """

    task: TaskId
    prefix: str
    holdings: tuple[Holding, ...]
    strays: dict[str, Listed]
    prunable: tuple[str, ...]
    journal_start: int
    journal_end: int
    partitions: Sequence[int] = ()

    @property
    def restorable(self) -> bool:
        """Whether an empty disk can be restored, as far as the checkpoints were checked."""
        return self.journal_start == 0 or any(holding.problem is None for holding in self.holdings)


def inventory_of(
    task: TaskId,
    cluster_id: str,
    reader: JournalReader,
    store: CheckpointStore,
    now_ms: int,
    grace_s: float,
    *,
    to_delete: bool = False,
) -> Inventory:
    """Compare the names and sizes of the objects with the checkpoints that the journal registers.

    Args:
        task: The task.
        cluster_id: The id of the Kafka cluster, a part of the names.
        reader: Reads the journal.
        store: The checkpoint store.
        now_ms: The time, which gives the objects' ages. To prune objects, use `store_time_ms`.
        grace_s: Newer objects are not prunable: an upload may still be running.
        to_delete: Ask every broker for the end of the journal. An old end would miss the newest checkpoints, and their
            objects would look like strays.

    Raises:
        CheckpointStoreError: The store cannot be read.
        UnreachableError: Kafka is unreachable.
        RetriableError: A read of the journal failed and can be repeated.
        FatalTaskError: The journal is damaged.
    """
    prefix = checkpoint_prefix(cluster_id, task)
    # List the store before reading the journal: a checkpoint that is registered in between is then not a stray.
    there = list_objects(store, prefix, now_ms)
    bounds = reader.bounds(task.journal)
    if to_delete:
        bounds = bounds._replace(stable_end=reader.highest_ends([task.journal])[task.journal])
    holdings = []
    for candidate in registered(task, reader, bounds.start, bounds.stable_end):
        manifest, problem = None, candidate.problem
        try:
            manifest = read_manifest(store, cluster_id, task, candidate.ref)
            problem = problem or _missing(manifest, there)
        except DamagedCheckpointError as error:
            problem = error.message
        holdings.append(Holding(candidate.ref, manifest, problem))
    kept = [(holding.ref, holding.manifest) for holding in holdings]
    named = {ref.manifest for ref, _ in kept}
    named.update(name for _, manifest in kept if manifest for name in manifest.objects)
    return Inventory(
        task,
        prefix,
        tuple(holdings),
        {name: found for name, found in there.items() if name not in named},
        plan_cleanup(kept, there, grace_s),
        bounds.start,
        bounds.stable_end,
    )


def store_time_ms(cluster_id: str, group: GroupId, store: CheckpointStore, nonce: bytes) -> int:
    """The time of the clock that dates the store's objects, from an object that is written and then deleted.

    Only its age distinguishes an object of a running upload from one that a crash left. If the clock of this machine is
    ahead of the store's, every object would look old. Raises CheckpointStoreError.
    """
    prefix = checkpoint_prefix(cluster_id, group)
    name = prefix + checkpoint_clock(nonce)
    store.put(name, [b"."], 1)
    try:
        written = [found.modified_ms for found in store.objects(prefix + "clock/") if found.name == name]
    finally:
        store.delete([name])
    if not written:
        raise CheckpointStoreError(
            f"object {name} was written to the checkpoint store, but the store does not list it",
            hint="no object was deleted; run the command again",
        )
    return written[0]


def verify(found: Inventory, store: CheckpointStore, read: Callable[[int], None]) -> Inventory:
    """Read every object of every checkpoint and compare it with its hash; return the inventory with the problems.

    `read` is called with the number of bytes of each read. Raises CheckpointStoreError.
    """
    verdicts: dict[tuple[str, int, bytes], str | None] = {}
    holdings = []
    for holding in found.holdings:
        problem = holding.problem
        for file in holding.manifest.files if holding.manifest is not None else ():
            key = (file.object, file.size, file.digest)
            if key not in verdicts:
                verdicts[key] = None
                try:
                    for _ in verified(store, found.prefix, file, read):
                        pass
                except DamagedCheckpointError as error:
                    verdicts[key] = error.message
            problem = problem or verdicts[key]
        holdings.append(replace(holding, problem=problem))
    return replace(found, holdings=tuple(holdings))


def prune(found: Inventory, store: CheckpointStore) -> int:
    """Delete the prunable objects, and return how many there were. Raises CheckpointStoreError."""
    store.delete([found.prefix + name for name in found.prunable])
    return len(found.prunable)


def _missing(manifest: Manifest, there: dict[str, Listed]) -> str | None:
    for name, size in manifest.objects.items():
        held = there.get(name)
        if held is None:
            return f"object {name} is not in the checkpoint store"
        if held.size != size:
            return f"object {name} has {held.size} bytes instead of {size}"
    return None

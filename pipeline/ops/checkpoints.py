"""What a checkpoint store holds of a task, beside what its journal says: for people, with every worker dead or alive.

Nothing is changed but by `prune`, which deletes what a worker's next checkpoint would delete, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.core.checkpoint import Listed, Manifest, plan_cleanup
from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.names import GroupId, TaskId, checkpoint_clock, checkpoint_prefix
from pipeline.errors import CheckpointStoreError, DamagedCheckpointError
from pipeline.ports import CheckpointStore, JournalReader
from pipeline.runtime.restore.download import read_manifest, verified
from pipeline.runtime.restore.restore_source import registered

__all__ = ["Holding", "Inventory", "look", "prune", "store_time_ms", "verify"]


@dataclass(frozen=True, slots=True)
class Holding:
    """One registered checkpoint. `problem`: why it could not be restored from, as far as that was looked at."""

    ref: CheckpointRef
    manifest: Manifest | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """One task, newest checkpoint first. `strays`: names of what no kept checkpoint names, with sizes and ages.

    `journal_start`, `journal_end`: offsets; `at_genesis`: whether the journal still begins at its beginning.
    """

    task: TaskId
    prefix: str
    holdings: tuple[Holding, ...]
    strays: dict[str, Listed]
    prunable: tuple[str, ...]
    journal_start: int
    journal_end: int

    @property
    def restorable(self) -> bool:
        """Whether an empty disk could be restored, as far as that was looked at."""
        return self.journal_start == 0 or any(holding.problem is None for holding in self.holdings)


def look(
    task: TaskId,
    cluster_id: str,
    reader: JournalReader,
    store: CheckpointStore,
    now_ms: int,
    grace_s: float,
    *,
    to_delete: bool = False,
) -> Inventory:
    """Compare names and sizes. `now_ms`: as from `store_time_ms`, where objects are to be pruned.

    `to_delete`: by every broker's word on the journal's end, since an old end would make objects of the newest
    checkpoints pass for strays. Raises CheckpointStoreError, UnreachableError, RetriableError, FatalTaskError.
    """
    prefix = checkpoint_prefix(cluster_id, task)
    # First the store, then the journal: what is registered in between is then not taken for a stray.
    there = {
        found.name.removeprefix(prefix): Listed(found.size, (now_ms - found.modified_ms) / 1000)
        for found in store.objects(prefix)
    }
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
    """The time by the clock that the store's objects are dated by, from an object that is written and deleted.

    An upload that is under way is told from what a crash has left by its age alone. By the clock of this machine, if
    that is ahead, every object would be old. Raises CheckpointStoreError.
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
            f"object {name} was written to the checkpoint store and is not listed",
            hint="nothing was deleted; run the command again",
        )
    return written[0]


def verify(found: Inventory, store: CheckpointStore, read: Callable[[int], None]) -> Inventory:
    """The same, with every object of every checkpoint read and compared with its hash; each once.

    `read`: told how many bytes more were read. Raises CheckpointStoreError.
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
    """Delete what may go; how many. Raises CheckpointStoreError."""
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

"""Chooses the state that a restore starts from, and installs it: `choose`. Downloads checkpoints: `download`.

    1 read the local state, and the journal's entry at its position
    2 unless these match: read the checkpoints of the last CHECKPOINT entry, and the entries at their positions
    3 decide (`core.recovery.plan_restore`)
    4 download and verify the checkpoint; a damaged one is refused, and 3 decides again
    4.1 the manifest, verified against the journal's reference
    4.2 its files, several at a time, each verified against its hash while it arrives
    5 move the local state away, install the downloaded one, and read its position

Only checkpoints that the journal names are considered: other objects in the store may be those of a fenced worker.
A crash in 4 leaves a directory that the next start removes; a crash before it changes nothing. A crash in 5 leaves no
local state, and the next start downloads again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

from pipeline.core.checkpoint import DIGEST_BYTES, Manifest, StateFile, decode_manifest
from pipeline.core.checkpoint_refs import CheckpointRef, kept_checkpoints
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import TaskId, checkpoint_prefix
from pipeline.core.position import AppliedPosition, decode_position
from pipeline.core.recovery import Candidate, JournalFacts, RestorePlan, Start, plan_restore, tail_is_lost
from pipeline.errors import (
    CheckpointStoreError,
    CorruptStateError,
    DamagedCheckpointError,
    FatalTaskError,
    InvariantError,
    PipelineError,
)
from pipeline.ports import (
    CheckpointStore,
    JournalBounds,
    JournalReader,
    Staged,
    Step,
    Store,
    error_fields,
    task_fields,
)
from pipeline.runtime.commit.journal_reader import first_entry, last_entry
from pipeline.runtime.environment import Checkpoints, Environment
from pipeline.runtime.restore.progress import RestoreProgress

__all__ = [
    "RestoreSource",
    "UnprovenError",
    "choose",
    "download",
    "from_checkpoint",
    "read_manifest",
    "registered",
    "verified",
]


def read_manifest(store: CheckpointStore, cluster_id: str, task: TaskId, ref: CheckpointRef) -> Manifest:
    """The manifest that `ref` registers, verified. Raises DamagedCheckpointError, CheckpointStoreError."""
    data = b"".join(store.get(checkpoint_prefix(cluster_id, task) + ref.manifest))
    return decode_manifest(data, task, ref)


def download(
    task: TaskId,
    ref: CheckpointRef,
    cluster_id: str,
    checkpoints: Checkpoints,
    environment: Environment,
    progress: RestoreProgress,
) -> tuple[Staged, Manifest]:
    """Download the checkpoint's files beside the task's state directory, ready to be installed.

    Raises DamagedCheckpointError, CheckpointStoreError, ConfigError and CorruptStateError (the local disk).
    """
    manifest = read_manifest(checkpoints.store, cluster_id, task, ref)  # 4.1
    progress.copying(manifest.size)
    staged = environment.stores.stage(task)
    prefix = checkpoint_prefix(cluster_id, task)
    failures: list[BaseException] = []

    def fetch(file: StateFile) -> Callable[[], None]:
        def step() -> None:
            if not failures:
                staged.write(file.name, verified(checkpoints.store, prefix, file, progress.copied))
                environment.steps.reached(Step.DURING_DOWNLOAD, task)

        return step

    largest_first = sorted(manifest.files, key=lambda file: -file.size)
    transfers = [checkpoints.transfers.submit(fetch(file)) for file in largest_first]  # 4.2
    for transfer in transfers:
        try:
            transfer.result()
        except BaseException as error:  # noqa: BLE001 - raised below, once no thread writes to the directory
            failures.append(error)
    if failures:
        staged.discard()
        raise failures[0]
    return staged, manifest


def verified(
    store: CheckpointStore, prefix: str, file: StateFile, arrived: Callable[[int], None]
) -> Iterator[bytes]:
    """A file's content. At its end, it is compared with its hash. Raises DamagedCheckpointError then."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    size = 0
    for piece in store.get(prefix + file.object):
        digest.update(piece)
        size += len(piece)
        yield piece
        arrived(len(piece))
    if size != file.size:
        raise DamagedCheckpointError(f"object {file.object} has {size} bytes instead of {file.size}")
    if digest.digest() != file.digest:
        raise DamagedCheckpointError(f"object {file.object} is damaged: its content has another hash")


class UnprovenError(PipelineError):
    """A read would set a local state aside. Reaction: prove the read first."""


class RestoreSource(NamedTuple):
    """The open state that a restore starts from, and the last journal entry that it contains."""

    store: Store
    plan: RestorePlan
    head: JournalEntry | None


@dataclass(slots=True)
class _Local:
    """The open local state. `damage`: why it cannot be read."""

    store: Store | None = None
    applied: AppliedPosition | None = None
    damage: str | None = None

    def close(self) -> None:
        store, self.store = self.store, None
        if store is not None:
            store.close()


def choose(
    task: TaskId,
    reader: JournalReader,
    end: int,
    cluster_id: str,
    environment: Environment,
    progress: RestoreProgress,
    copy: Store | None = None,
    *,
    proven: bool,
) -> RestoreSource:
    """The state to start from. `end`: the journal's end. `copy`: the local state, if it is already open.

    `proven`: whether a barrier shows that the journal was read to its end. Raises RetriableError (truncation overtook
    the read: read again), UnprovenError, FatalTaskError, ConfigError, CorruptStateError (the disk),
    CheckpointStoreError (the only source is a checkpoint that cannot be read now).
    """
    local = _open_local(task, copy, environment)  # 1
    try:
        start = reader.bounds(task.journal).start
        at_local = _entry_at_local(task, reader, local.applied, start, end)
        # A local state that matches needs no read of the journal's first entry.
        fits = at_local is not None and local.applied is not None and at_local.chain == local.applied.chain
        first = at_local if fits else first_entry(task, reader, start, end)
        last_seq = _last_seq(task, reader, start, end) if local.applied is not None and not fits else None
        facts = JournalFacts(first, at_local, end, start, last_seq)
        # After a loss, nothing is restored, and the journal's end may be a part of an entry: do not read checkpoints
        # from it.
        lost = tail_is_lost(local.applied, cluster_id, facts)
        candidates = [] if fits or lost else registered(task, reader, start, end)  # 2
        if candidates and environment.checkpoints is None:
            candidates = [
                replace(found, refused="worker.checkpoint_store is not set") for found in candidates
            ]
        unavailable: str | None = None
        while True:
            plan = plan_restore(
                str(task), local.applied, local.damage, cluster_id, facts, candidates, unavailable
            )  # 3
            if plan.set_aside is not None and not proven:
                raise UnprovenError(f"the local state of task {task} would be set aside: {plan.set_aside}")
            if plan.checkpoint is None:
                break
            try:
                return _install_checkpoint(task, plan, local, cluster_id, environment, progress)
            except DamagedCheckpointError as error:
                # It does not exist if it was set aside for a checkpoint that was then found to be damaged.
                if not environment.stores.exists(task):
                    local = _Local()
                candidates = _refuse(task, plan, candidates, error, environment)
            except CheckpointStoreError as error:
                unavailable = error.message
    except BaseException:
        local.close()
        raise
    if plan.set_aside is not None:
        _remove_local(task, plan, local, environment)
    store = local.store if local.store is not None else environment.stores.open(task)
    return RestoreSource(store, plan, at_local if plan.start is Start.LOCAL else None)


def registered(task: TaskId, reader: JournalReader, start: int, end: int) -> list[Candidate]:
    """The checkpoints that the journal keeps, newest first, each with the journal's entry at its offset.

    This takes two reads, whatever the journal's length: the last entry has the offset of the last CHECKPOINT entry.
    """
    last = last_entry(task.journal, reader, JournalBounds(start, end, end))
    place = last.checkpoint if last is not None else -1
    if not start <= place < end:
        return []
    entry = _entry_at(task, reader, place, end)
    if entry is None:
        return []
    return [
        Candidate(ref, _entry_at(task, reader, ref.offset, end) if ref.offset >= start else None)
        for ref in kept_checkpoints(entry)
    ]


def from_checkpoint(
    task: TaskId, candidate: Candidate, cluster_id: str, environment: Environment, progress: RestoreProgress
) -> RestoreSource:
    """Download a checkpoint into `environment.stores`, which must not have a state of the task.

    Raises DamagedCheckpointError, CheckpointStoreError.
    """
    if candidate.problem is not None or candidate.found is None:
        raise DamagedCheckpointError(f"checkpoint {candidate.ref.seq} cannot be used: {candidate.problem}")
    offset = candidate.found.next_offset
    plan = RestorePlan(Start.CHECKPOINT, offset, None, checkpoint=candidate.ref, head=candidate.found)
    return _install_checkpoint(task, plan, _Local(), cluster_id, environment, progress)


def _open_local(task: TaskId, store: Store | None, environment: Environment) -> _Local:
    try:
        # `open` would create a missing directory, and a restore that fails must not leave a new one.
        if store is None and environment.stores.exists(task):
            store = environment.stores.open(task)
        data = store.position() if store is not None else None
        applied = decode_position(data, f"the state of task {task}") if data is not None else None
    except CorruptStateError as error:
        return _Local(store, None, error.message)
    return _Local(store, applied, None)


def _install_checkpoint(
    task: TaskId,
    plan: RestorePlan,
    local: _Local,
    cluster_id: str,
    environment: Environment,
    progress: RestoreProgress,
) -> RestoreSource:
    """Raises DamagedCheckpointError, CheckpointStoreError; the local state is then unchanged."""
    ref, head = plan.checkpoint, plan.head
    if ref is None or head is None or environment.checkpoints is None:
        raise InvariantError(f"task {task} is restored from no checkpoint")
    staged, manifest = download(task, ref, cluster_id, environment.checkpoints, environment, progress)  # 4
    environment.steps.reached(Step.BEFORE_INSTALL, task)
    try:
        _remove_local(task, plan, local, environment)  # 5
        staged.install()
    except BaseException:
        staged.discard()
        raise
    environment.steps.reached(Step.AFTER_INSTALL, task)
    store: Store | None = None
    try:
        store = environment.stores.open(task)
        data = store.position()
        applied = decode_position(data, f"checkpoint {ref.seq}") if data is not None else None
        if applied != manifest.applied:
            raise DamagedCheckpointError(f"checkpoint {ref.seq} holds another state than its manifest says")
    except (CorruptStateError, DamagedCheckpointError) as error:
        if store is not None:
            store.close()
        environment.stores.destroy(task)
        raise DamagedCheckpointError(error.message) from error
    return RestoreSource(store, replace(plan, position=applied), head)


def _remove_local(task: TaskId, plan: RestorePlan, local: _Local, environment: Environment) -> None:
    """Move the local state away. A state that may still be useful is kept."""
    local.close()
    if not environment.stores.exists(task):
        return
    if plan.set_aside is not None:
        place = environment.stores.set_aside(task)
        environment.log.warning(
            "local_state_set_aside", **task_fields(task), reason=plan.set_aside, path=place
        )
        return
    environment.stores.destroy(task)
    if plan.outdated is not None:
        environment.log.info("local_state_outdated", **task_fields(task), reason=plan.outdated)


def _refuse(
    task: TaskId,
    plan: RestorePlan,
    candidates: list[Candidate],
    error: DamagedCheckpointError,
    environment: Environment,
) -> list[Candidate]:
    refused = plan.checkpoint
    environment.log.warning(
        "checkpoint_refused",
        **task_fields(task),
        seq=refused.seq if refused else None,
        **error_fields(
            error,
            hint="find damaged objects with pipeline checkpoints verify. The restore tries the next older checkpoint",
        ),
    )
    return [replace(c, refused=error.message) if c.ref == refused else c for c in candidates]


def _last_seq(task: TaskId, reader: JournalReader, start: int, end: int) -> int:
    """The seq of the journal's last entry; 0 if there is none, or only a part of one."""
    try:
        last = last_entry(task.journal, reader, JournalBounds(start, end, end))
    except FatalTaskError:
        return 0  # the tail may be lost from the middle of an entry
    return last.entry.seq if last is not None else 0


def _entry_at_local(
    task: TaskId, reader: JournalReader, local: AppliedPosition | None, start: int, end: int
) -> JournalEntry | None:
    """The journal's entry at the offset of the local state's last entry."""
    if local is None or not start <= local.offset < end:
        return None
    # The tail may be lost from the middle of an entry. Its remaining chunks are not an entry.
    return _entry_at(task, reader, local.offset, min(local.next_offset, end))


def _entry_at(task: TaskId, reader: JournalReader, offset: int, end: int) -> JournalEntry | None:
    """The entry that starts at exactly `offset`, read up to `end` at most."""
    try:
        entry = first_entry(task, reader, offset, end)
    except FatalTaskError:
        return None  # no entry starts here: another history. A replay verifies each entry that it applies
    return entry if entry is not None and entry.offset == offset else None

"""Makes one checkpoint of a task, and cleans up after it is registered: `CheckpointUpload`, `clean_up`.

    1 snapshot: hard links of the state at one moment. The snapshot records its journal entry
    2 read the manifests that the journal keeps, and list the task's objects in the store
    3 upload the files that no kept manifest has an object for, under new names
    4 list again: each object of the new manifest exists at its full size
    5 upload the manifest
    6 make the final list of objects to delete
    7 (the task commits the CHECKPOINT entry: from here on the checkpoint is valid)
    8 delete the listed objects
    9 truncate the journal below the oldest checkpoint that the entry keeps

    a crash leaves        in the store                       in the journal       later
    before 5              objects that no manifest names     nothing              deleted after the grace age
    5 to 7                the same, and a manifest           nothing              deleted after the grace age
    after 7               objects that 8 has not deleted     the new checkpoint   deleted by the next checkpoint
    after 8               nothing                            old entries          truncated by the next checkpoint

A fenced owner can perform all steps except 7, and then 8 and 9 do not follow. An owner that is fenced after 7 deletes
by a list that was made while it was the owner, and truncates entries that no later owner needs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from pipeline.core.checkpoint import (
    DIGEST_BYTES,
    FileContent,
    Listed,
    Manifest,
    StateFile,
    UploadPlan,
    encode_manifest,
    keep,
    manifest_digest,
    plan_cleanup,
    plan_upload,
    truncation_offset,
)
from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.names import TaskId, checkpoint_prefix
from pipeline.core.position import decode_position
from pipeline.errors import (
    CheckpointStoreError,
    CorruptStateError,
    DamagedCheckpointError,
    PipelineError,
    RetriableError,
)
from pipeline.ports import (
    CheckpointStore,
    Clock,
    Snapshot,
    SnapshotFile,
    Step,
    Store,
    error_fields,
    task_fields,
)
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.restore_source import read_manifest

__all__ = ["CheckpointUpload", "Throttle", "UploadCache", "Uploaded", "clean_up", "list_objects"]

NONCE_BYTES = 8


class Throttle:
    """Shared by threads. `bytes_per_s` 0: no limit."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._free_s = clock.monotonic_s()

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may be transferred. Unused capacity is not saved up."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now = self._clock.monotonic_s()
            begin = max(now, self._free_s)
            self._free_s = begin + count / self._bytes_per_s
        if begin > now:
            self._clock.sleep(begin - now)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A complete checkpoint that is not registered yet. `kept`: the checkpoints that its entry will keep, newest first.

    `cleanup`: names, relative to the task's prefix, that may be deleted once the entry is committed.
    """

    kept: tuple[CheckpointRef, ...]
    cleanup: tuple[str, ...]
    files: int
    uploaded_files: int
    uploaded_bytes: int

    @property
    def ref(self) -> CheckpointRef:
        return self.kept[0]


class UploadCache:
    """A process's cache of facts about a task's files and checkpoints.

    The attempt of a dropped task may still write to it while the next attempt does. This is safe, because each writes
    only facts, and neither relies on the cache.
    """

    def __init__(self) -> None:
        self.digests: dict[Hashable, bytes] = {}
        self.manifests: dict[CheckpointRef, Manifest] = {}


class CheckpointUpload:
    """A checkpoint that is being made. After a CheckpointStoreError, `run` can be called again, and resumes.

    `stopped`: set by the owner to end a run early.
    """

    def __init__(
        self,
        task: TaskId,
        owner: str,
        state: Store,
        store: CheckpointStore,
        environment: Environment,
        grace_s: float,
        throttle: Throttle,
        known: UploadCache,
    ) -> None:
        self._task = task
        self._owner = owner
        self._state = state
        self._store = store
        self._environment = environment
        self._grace_s = grace_s
        self._throttle = throttle
        self._known = known
        self._nonce = environment.random.token(NONCE_BYTES)
        self._snapshot: Snapshot | None = None
        self._plan: UploadPlan | None = None
        self._uploaded: set[str] = set()
        # Part of the manifest, which must be equal in each run: a late request of an earlier run may overwrite it.
        self._wall_ms = environment.clock.wall_ms()
        self.began_s = environment.clock.monotonic_s()
        self.stopped = False

    def run(self) -> Uploaded:
        """Steps 1 to 6. Raises CheckpointStoreError, CorruptStateError, RetriableError (stopped)."""
        steps, task = self._environment.steps, self._task
        if self._snapshot is None:
            self._snapshot = self._state.snapshot()  # 1
            steps.reached(Step.AFTER_SNAPSHOT, task)
        snapshot = self._snapshot
        applied = decode_position(snapshot.position, f"the snapshot of task {task}")
        prefix = checkpoint_prefix(applied.identity.cluster_id, task)
        kept = [(ref, self._manifest(ref, applied.identity.cluster_id)) for ref in applied.checkpoints]
        if self._plan is None:
            there = list_objects(self._store, prefix, self._environment.clock.wall_ms())  # 2
            digests = {file.token: self._digest(snapshot, file) for file in snapshot.files}
            contents = [FileContent(f.name, f.size, digests[f.token]) for f in snapshot.files]
            manifests = {ref: manifest for ref, manifest in kept if manifest is not None}
            self._known.digests, self._known.manifests = digests, manifests
            self._plan = plan_upload(contents, [manifest for _, manifest in kept], there, self._nonce)
        for file in self._plan.new:
            if file.object not in self._uploaded:
                self._store.put(prefix + file.object, self._content(snapshot, file), file.size)  # 3
                self._uploaded.add(file.object)
                steps.reached(Step.DURING_UPLOAD, task)
        manifest = Manifest(str(task), self._owner, self._wall_ms, applied, self._plan.files)
        there = list_objects(self._store, prefix, self._environment.clock.wall_ms())
        self._check_there(manifest, there)  # 4
        steps.reached(Step.BEFORE_MANIFEST, task)
        data = encode_manifest(manifest)
        ref = _ref(manifest, data, self._nonce)
        self._store.put(prefix + ref.manifest, [data], len(data))  # 5
        steps.reached(Step.AFTER_MANIFEST, task)
        self._known.manifests[ref] = manifest
        keeping = keep(ref, applied.checkpoints)
        cleanup = plan_cleanup(
            [(ref, manifest), *(each for each in kept if each[0] in keeping)], there, self._grace_s
        )  # 6
        return Uploaded(
            keeping,
            cleanup,
            len(manifest.files),
            len(self._plan.new),
            sum(file.size for file in self._plan.new),
        )

    def close(self) -> None:
        """Remove the snapshot."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def _manifest(self, ref: CheckpointRef, cluster_id: str) -> Manifest | None:
        found = self._known.manifests.get(ref)
        if found is None:
            try:
                found = read_manifest(self._store, cluster_id, self._task, ref)
            except DamagedCheckpointError as error:
                self._environment.log.warning(
                    "checkpoint_damaged", **task_fields(self._task), seq=ref.seq, **error_fields(error)
                )
                return None
            self._known.manifests[ref] = found
        return found

    def _digest(self, snapshot: Snapshot, file: SnapshotFile) -> bytes:
        known = self._known.digests.get(file.token)
        if known is None:
            digest = blake2b(digest_size=DIGEST_BYTES)
            for piece in snapshot.read(file.name):
                digest.update(piece)
                self._check_stopped()
            known = digest.digest()
        return known

    def _content(self, snapshot: Snapshot, file: StateFile) -> Iterator[bytes]:
        """The content of a file for the upload, compared with its digest, because the disk may be damaged."""
        digest = blake2b(digest_size=DIGEST_BYTES)
        for piece in snapshot.read(file.name):
            self._check_stopped()
            self._throttle.take(len(piece))
            digest.update(piece)
            yield piece
        if digest.digest() != file.digest:
            raise CorruptStateError(f"file {file.name} of task {self._task} changed while it was uploaded")

    def _check_there(self, manifest: Manifest, there: dict[str, Listed]) -> None:
        for name, size in manifest.objects.items():
            found = there.get(name)
            if found is None or found.size != size:
                self._plan = None  # missing objects are uploaded under another name
                self._uploaded.clear()
                self._nonce = self._environment.random.token(NONCE_BYTES)
                raise CheckpointStoreError(
                    f"the checkpoint store does not have object {name} of task {self._task} as it was written",
                    hint="follow runbooks/checkpoint-store-unavailable.md",
                )

    def _check_stopped(self) -> None:
        if self.stopped:
            raise RetriableError(f"the checkpoint of task {self._task} is abandoned")


def list_objects(store: CheckpointStore, prefix: str, now_ms: int) -> dict[str, Listed]:
    """The objects with a prefix, by their names without it. `now_ms`: for their ages. Raises CheckpointStoreError."""
    return {
        found.name.removeprefix(prefix): Listed(found.size, (now_ms - found.modified_ms) / 1000)
        for found in store.objects(prefix)
    }


def clean_up(
    task: TaskId, cluster_id: str, made: Uploaded, store: CheckpointStore, environment: Environment
) -> PipelineError | None:
    """Steps 8 and 9, after the entry that keeps `made` was committed and applied.

    Returns the remaining work, which the next checkpoint does.
    """
    left: PipelineError | None = None
    prefix = checkpoint_prefix(cluster_id, task)
    try:
        for name in made.cleanup:
            store.delete([prefix + name])  # 8
            environment.steps.reached(Step.DURING_CLEANUP, task)
    except CheckpointStoreError as error:
        left = error
    environment.steps.reached(Step.BEFORE_TRUNCATE, task)
    offset = truncation_offset(made.kept)
    if offset is not None:
        try:
            environment.cluster.truncate(task.journal, offset)  # 9
        except PipelineError as error:
            left = error
    environment.steps.reached(Step.AFTER_TRUNCATE, task)
    return left


def _ref(manifest: Manifest, data: bytes, nonce: bytes) -> CheckpointRef:
    applied = manifest.applied
    return CheckpointRef(
        seq=applied.seq,
        offset=applied.offset,
        chain=applied.chain,
        nonce=nonce,
        digest=manifest_digest(data),
        size=manifest.size,
        journal_bytes=applied.journal_bytes,
        wall_ms=manifest.wall_ms,
    )

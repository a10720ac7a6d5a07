"""Downloads a registered checkpoint to the local disk: `download`.

    1 the manifest, verified against the journal's reference
    2 its files, several at a time, each verified against its hash while it arrives

The state is installed only after everything has arrived and is verified. A crash leaves a directory that the next start
removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

from pipeline.core.checkpoint import DIGEST_BYTES, Manifest, StateFile, decode_manifest
from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.names import TaskId, checkpoint_prefix
from pipeline.errors import DamagedCheckpointError
from pipeline.ports import CheckpointStore, Staged, Step
from pipeline.runtime.environment import Checkpoints, Environment
from pipeline.runtime.restore_progress import RestoreProgress

__all__ = ["download", "read_manifest", "verified"]


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
    manifest = read_manifest(checkpoints.store, cluster_id, task, ref)  # 1
    progress.copying(manifest.size)
    staged = environment.stores.stage(task)
    prefix = checkpoint_prefix(cluster_id, task)
    failures: list[BaseException] = []

    def bring(file: StateFile) -> Callable[[], None]:
        def step() -> None:
            if not failures:
                staged.write(file.name, verified(checkpoints.store, prefix, file, progress.copied))
                environment.steps.reached(Step.DURING_DOWNLOAD, task)

        return step

    largest_first = sorted(manifest.files, key=lambda file: -file.size)
    under_way = [checkpoints.transfers.submit(bring(file)) for file in largest_first]  # 2
    for transfer in under_way:
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

"""Checkpoints: the format of manifests, and the decisions about uploads, deletions and journal truncation. Pure.

A checkpoint is a manifest and a journal entry. The manifest lists the files of one RocksDB state and the object that
holds each file. The entry registers the manifest. SST files are immutable, so most objects are shared with the previous
checkpoint. A checkpoint is safe because of the order in which it is made (runtime/checkpoints/checkpointer.py):
objects, manifest, the list of deletable objects, the entry, and only then deletion and truncation. Flink's incremental
checkpoints share objects in the same way; RocksDB's BackupEngine has the same file layout.

Manifest on the wire: magic "XM" | version u8 | blake2b of the body, 16 bytes | msgpack body (`core/envelope.py`). The
version is the format of the task's journal, which determines the form of the applied position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.entry_body import Format, format_of
from pipeline.core.envelope import BLAKE2B, BinaryEnvelope, EnvelopeError, Fault
from pipeline.core.names import TaskId, checkpoint_object
from pipeline.core.position import AppliedPosition, StoredPosition, loaded_position, stored_position
from pipeline.errors import DamagedCheckpointError, InvariantError

__all__ = [
    "DIGEST_BYTES",
    "KEPT",
    "FileContent",
    "Listed",
    "Manifest",
    "StateFile",
    "UploadPlan",
    "decode_manifest",
    "encode_manifest",
    "keep",
    "manifest_digest",
    "plan_cleanup",
    "plan_upload",
    "truncation_offset",
]

KEPT = 3
DIGEST_BYTES = 20
_ENVELOPES: Mapping[int, BinaryEnvelope] = {
    version: BinaryEnvelope(version=version, magic=b"XM", checksum=BLAKE2B) for version in (1, 2)
}
_VERSION_AT = 2  # after the magic
_FAULTS = {
    Fault.FOREIGN: "{where} is not a manifest",
    Fault.VERSION: f"{{where}} has format version {{version}}; this release knows 1 to {max(_ENVELOPES)}",
    Fault.CHECKSUM: "the checksum of {where} is wrong",
}


class StateFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a state: its name in RocksDB's directory, its content, and the object that holds it.

    `size` is in bytes. `digest` is blake2b of the content, DIGEST_BYTES long. `object` is relative to the task's
    prefix.
    """

    name: str
    size: int
    digest: bytes
    object: str


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """One checkpoint: all live files of the state at position `applied`. `task`: the text form of its TaskId."""

    task: str
    owner: str
    wall_ms: int
    applied: AppliedPosition
    files: tuple[StateFile, ...]

    @property
    def size(self) -> int:
        """The total size of the files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def objects(self) -> dict[str, int]:
        """The names of its objects, with their sizes in bytes."""
        return {file.object: file.size for file in self.files}


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A manifest as both formats store it."""

    task: str
    owner: str
    wall_ms: int
    applied: StoredPosition
    files: tuple[StateFile, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes to store. Raises InvariantError for a manifest that `decode_manifest` would refuse."""
    if problem := _problem(manifest):
        raise InvariantError(f"a manifest of task {manifest.task} {problem}")
    stored = msgspec.structs.replace(manifest, applied=stored_position(manifest.applied))
    return _ENVELOPES[format_of(manifest.applied.identity)].seal(_encoder.encode(stored))


def manifest_digest(data: bytes) -> bytes:
    """The digest of a manifest's bytes, as a CheckpointRef records it."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def decode_manifest(data: bytes, task: TaskId, ref: CheckpointRef) -> Manifest:
    """The manifest that `ref` registers, verified. Raises DamagedCheckpointError."""
    where = f"the manifest {ref.manifest} of task {task}"
    version: Format = 2 if data[_VERSION_AT : _VERSION_AT + 1] == b"\x02" else 1
    try:
        body = _ENVELOPES[version].open(data)
    except EnvelopeError as error:
        raise DamagedCheckpointError(
            _FAULTS[error.fault].format(where=where, version=error.version)
        ) from error
    if manifest_digest(data) != ref.digest:
        raise DamagedCheckpointError(f"{where} is not the one that the journal names")
    try:
        stored = _decoder.decode(body)
        applied = loaded_position(stored.applied, version)
    except msgspec.DecodeError as error:
        raise DamagedCheckpointError(f"{where} cannot be decoded: {error}") from error
    manifest = Manifest(stored.task, stored.owner, stored.wall_ms, applied, stored.files)
    if manifest.task != str(task):
        raise DamagedCheckpointError(f"{where} describes task {manifest.task}")
    if (applied.seq, applied.offset, applied.chain) != (ref.seq, ref.offset, ref.chain):
        raise DamagedCheckpointError(f"{where} describes entry {applied.seq} of another history")
    if problem := _problem(manifest):
        raise DamagedCheckpointError(f"{where} {problem}")
    return manifest


def keep(new: CheckpointRef, kept: Sequence[CheckpointRef]) -> tuple[CheckpointRef, ...]:
    """The checkpoints to keep once `new` is registered, newest first.

    Raises InvariantError if `new` is not the newest.
    """
    if kept and new.seq <= kept[0].seq:
        raise InvariantError(f"a checkpoint at entry {new.seq} follows one at {kept[0].seq}")
    return (new, *kept)[:KEPT]


class FileContent(NamedTuple):
    """A file of a state, with the digest of its content."""

    name: str
    size: int
    digest: bytes


class Listed(NamedTuple):
    """An object as the store lists it. `age_s`: seconds since its last write."""

    size: int
    age_s: float


class UploadPlan(NamedTuple):
    """The files of a manifest, and the files that must still be uploaded."""

    files: tuple[StateFile, ...]
    new: tuple[StateFile, ...]


def plan_upload(
    files: Iterable[FileContent],
    kept: Iterable[Manifest | None],
    listed: Mapping[str, Listed],
    nonce: bytes,
) -> UploadPlan:
    """Choose the objects that a checkpoint reuses and the files that it uploads, under names that contain `nonce`.

    `kept`: the manifests that the journal keeps now; None for one that cannot be read. `listed`: the task's objects.

    row  a kept manifest names an object with this content   the store lists it at full size   plan
    1    yes                                                 yes                               reuse it
    2    yes                                                 no                                upload
    3    no                                                  any                               upload

    Row 3 prevents data loss: an object that no kept manifest names may be on the deletion list of an earlier owner,
    although it still exists.
    """
    known: dict[tuple[bytes, int], str] = {}
    for manifest in kept:
        for file in manifest.files if manifest else ():
            found = listed.get(file.object)
            if found is not None and found.size == file.size:
                known.setdefault((file.digest, file.size), file.object)
    planned, new = [], []
    for content in files:
        place = known.get((content.digest, content.size))
        file = StateFile(*content, place or checkpoint_object(content.digest, nonce))
        planned.append(file)
        if place is None:
            known[content.digest, content.size] = file.object
            new.append(file)
    return UploadPlan(tuple(planned), tuple(new))


def plan_cleanup(
    kept: Iterable[tuple[CheckpointRef, Manifest | None]], listed: Mapping[str, Listed], grace_s: float
) -> tuple[str, ...]:
    """List the objects of a task that may be deleted once the checkpoint that is being made is committed.

    `kept`: the manifests that the journal will keep then; None for one that cannot be read. `listed`: all objects with
    the task's prefix, listed before the entry is committed.

    row  named by a kept checkpoint, or its manifest   age             kept manifests        plan
    1    yes                                           any             any                   keep
    2    no                                            below grace     any                   keep
    3    no                                            grace or more   all can be read       delete
    4    no                                            grace or more   one cannot be read    keep
    5    no                                            grace or more   none                  keep

    The worker that commits the entry owns the task at that moment, and later owners reuse only objects that are kept
    from then on. So a list made before the entry never names an object that a later owner needs, however late the
    deletions happen. Row 5: a journal without checkpoints may be new, and the objects may be all that is left of the
    old one.
    """
    named: set[str] = set()
    for ref, manifest in kept:
        if manifest is None:
            return ()
        named.add(ref.manifest)
        named.update(manifest.objects)
    if not named:
        return ()
    return tuple(
        sorted(name for name, found in listed.items() if name not in named and found.age_s >= grace_s)
    )


def truncation_offset(kept: Sequence[CheckpointRef]) -> int | None:
    """The offset below which the journal may be truncated; None: it must not be.

    row  registered           plan
    1    fewer than KEPT      None: a restore may need the whole journal
    2    KEPT                 the offset of the last entry that the oldest checkpoint contains. The entry itself is kept
                              for its chain value

    It is not the offset of the entry that registered the checkpoint: commits lie between the two.
    """
    return kept[-1].offset if len(kept) >= KEPT else None


def _problem(manifest: Manifest) -> str | None:
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names) or not names:
        return "names no file, or a file twice"
    for file in manifest.files:
        if not file.name or "/" in file.name or file.name.startswith("."):
            return f"names a file {file.name!r}"
        if file.size < 0 or len(file.digest) != DIGEST_BYTES or not file.object.startswith("objects/"):
            return f"has an invalid size, hash or object for file {file.name}"
    return None

"""Checkpoints: the manifest's format, and every decision about objects and about the journal's truncation. Pure.

A checkpoint is a manifest, which names the files of one RocksDB state and the object that holds each, and an entry
in the journal that registers it. SST files never change, so most objects are those of the checkpoint before. The
order in which a checkpoint is made is what makes it safe (runtime/checkpoints/checkpointer.py): objects, manifest,
the list of what may go, the entry, and only then deletion and truncation. The shape is that of Flink's incremental
checkpoints, where objects belong to whoever still names them, and of RocksDB's BackupEngine.

Manifest on the wire: magic "XM" | version u8 | blake2b of the body, 16 bytes | msgpack body (`core/envelope.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.envelope import BLAKE2B, BinaryEnvelope, EnvelopeError, Fault
from pipeline.core.names import TaskId, checkpoint_object
from pipeline.core.position import AppliedPosition
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
_ENVELOPE = BinaryEnvelope(version=1, magic=b"XM", checksum=BLAKE2B)
_FAULTS = {
    Fault.FOREIGN: "{where} is no manifest",
    Fault.VERSION: f"{{where}} has format version {{version}}; this release knows {_ENVELOPE.version}",
    Fault.CHECKSUM: "the checksum of {where} is wrong",
}


class StateFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a state: its name in RocksDB's directory, its content, and the object that holds it.

    `size` in bytes; `digest` is blake2b of the content, DIGEST_BYTES long; `object` lies behind the task's prefix.
    """

    name: str
    size: int
    digest: bytes
    object: str


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """One checkpoint: all live files of a state that stands at `applied`. `task` as printed."""

    task: str
    owner: str
    wall_ms: int
    applied: AppliedPosition
    files: tuple[StateFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def objects(self) -> dict[str, int]:
        """The objects it names, with their sizes."""
        return {file.object: file.size for file in self.files}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Bytes for the store. Raises InvariantError for a manifest that could not be read back."""
    if problem := _problem(manifest):
        raise InvariantError(f"a manifest of task {manifest.task} {problem}")
    return _ENVELOPE.seal(_encoder.encode(manifest))


def manifest_digest(data: bytes) -> bytes:
    """What a CheckpointRef says of a manifest's bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def decode_manifest(data: bytes, task: TaskId, ref: CheckpointRef) -> Manifest:
    """The manifest that `ref` registers, verified. Raises DamagedCheckpointError."""
    where = f"the manifest {ref.manifest} of task {task}"
    try:
        body = _ENVELOPE.open(data)
    except EnvelopeError as error:
        raise DamagedCheckpointError(
            _FAULTS[error.fault].format(where=where, version=error.version)
        ) from error
    if manifest_digest(data) != ref.digest:
        raise DamagedCheckpointError(f"{where} is not the one that the journal names")
    try:
        manifest = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise DamagedCheckpointError(f"{where} cannot be decoded: {error}") from error
    applied = manifest.applied
    if manifest.task != str(task):
        raise DamagedCheckpointError(f"{where} describes task {manifest.task}")
    if (applied.seq, applied.offset, applied.chain) != (ref.seq, ref.offset, ref.chain):
        raise DamagedCheckpointError(f"{where} describes entry {applied.seq} of another history")
    if problem := _problem(manifest):
        raise DamagedCheckpointError(f"{where} {problem}")
    return manifest


def keep(new: CheckpointRef, kept: Sequence[CheckpointRef]) -> tuple[CheckpointRef, ...]:
    """What is kept once `new` is registered, newest first. Raises InvariantError when `new` is not the newest."""
    if kept and new.seq <= kept[0].seq:
        raise InvariantError(f"a checkpoint at entry {new.seq} follows one at {kept[0].seq}")
    return (new, *kept)[:KEPT]


class FileContent(NamedTuple):
    """A file to be kept: `digest` of its content."""

    name: str
    size: int
    digest: bytes


class Listed(NamedTuple):
    """What the store says of an object: `age_s` since it was last written."""

    size: int
    age_s: float


class UploadPlan(NamedTuple):
    """The files of a manifest, and those of them whose objects are yet to be made."""

    files: tuple[StateFile, ...]
    new: tuple[StateFile, ...]


def plan_upload(
    files: Iterable[FileContent],
    kept: Iterable[Manifest | None],
    listed: Mapping[str, Listed],
    nonce: bytes,
) -> UploadPlan:
    """Which objects a checkpoint uses again, and which are made, under names that carry `nonce`.

    `kept`: manifests that the journal keeps now, None where one cannot be read. `listed`: the task's objects.

    row  a kept manifest names an object with this content   the store lists it, whole   plan
    1    yes                                                 yes                         use it
    2    yes                                                 no, or of another size      make one
    3    no                                                  whatever                    make one

    Row 3 is the rule that matters: an object that nobody keeps may be in the list of what an owner before us is
    about to delete, although it is there now.
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
    """What may be deleted of a task's objects. Before a checkpoint is registered: once that is committed.

    `kept`: what the journal will keep then; None for a manifest that cannot be read. `listed`: everything behind
    the task's prefix, as of a moment before the entry.

    row  named by a kept checkpoint, or its manifest   age             kept manifests   plan
    1    yes                                           whatever        whatever         stays
    2    no                                            below grace     whatever         stays
    3    no                                            grace or more   all are read     may go
    4    no                                            grace or more   one is not       stays
    5    no                                            grace or more   there are none   stays

    Whoever commits the entry is the owner at that moment, and later owners use again only what is kept from then
    on. So a list made before the entry can name nothing that a later owner needs, however late it is worked off.
    Row 5: a journal that names no checkpoint may be a new one, and the objects all that is left of the old.
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
    """Where the journal may begin: records below may go. None: nothing may.

    row  registered           plan
    1    fewer than KEPT      None: the journal is still the way back
    2    KEPT                 the offset of the entry that the oldest has applied; it stays, for its chain

    Not the entry that registered it: commits lie between the two.
    """
    return kept[-1].offset if len(kept) >= KEPT else None


def _problem(manifest: Manifest) -> str | None:
    names = [file.name for file in manifest.files]
    if len(set(names)) != len(names) or not names:
        return "names no file, or one twice"
    for file in manifest.files:
        if not file.name or "/" in file.name or file.name.startswith("."):
            return f"names a file {file.name!r}"
        if file.size < 0 or len(file.digest) != DIGEST_BYTES or not file.object.startswith("objects/"):
            return f"says nothing sensible of file {file.name}"
    return None

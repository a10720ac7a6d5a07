"""Checkpoints: what is read is what was written, and nothing that anybody needs is reused, deleted or cut wrongly.

A test of a decision table's row ends with the row's number.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.checkpoint import (
    DIGEST_BYTES,
    KEPT,
    FileContent,
    Listed,
    Manifest,
    StateFile,
    decode_manifest,
    encode_manifest,
    keep,
    manifest_digest,
    plan_cleanup,
    plan_upload,
    truncation_offset,
)
from pipeline.core.checkpoint_refs import CHECKPOINTS, CheckpointRef, encode_kept, kept_checkpoints
from pipeline.core.journal_format import Entry, EntryKind, Identity, InputFacts, JournalEntry
from pipeline.core.names import TaskId, checkpoint_object
from pipeline.core.position import AppliedPosition, after
from pipeline.errors import DamagedCheckpointError, FatalTaskError, InvariantError

TASK = TaskId("app", "main", 0)
IDENTITY = Identity(
    "cluster", "murmur2_random", {"in": InputFacts("id-1", 4)}, {"t": "str->json:int"}, "topo"
)
GRACE_S = 60.0
OLD, YOUNG = GRACE_S, GRACE_S - 1


def digest(content: str) -> bytes:
    return content.encode().ljust(DIGEST_BYTES, b"-")


def state_file(name: str, content: str, nonce: bytes = b"n", size: int = 10) -> StateFile:
    return StateFile(name, size, digest(content), checkpoint_object(digest(content), nonce))


def manifest(seq: int, *files: StateFile) -> Manifest:
    applied = AppliedPosition(seq, seq * 2, seq * 2 + 1, bytes([seq]) * 16, {"in": seq}, IDENTITY)
    return Manifest(str(TASK), "w", 1_700_000_000_000, applied, files or (state_file("CURRENT", "c"),))


def ref_of(made: Manifest, nonce: bytes = b"m") -> CheckpointRef:
    applied = made.applied
    written = manifest_digest(encode_manifest(made))
    return CheckpointRef(
        applied.seq, applied.offset, applied.chain, nonce, written, made.size, 0, made.wall_ms
    )


def listed(*files: StateFile, age_s: float = OLD) -> dict[str, Listed]:
    return {file.object: Listed(file.size, age_s) for file in files}


# The manifest


def test_a_manifest_is_read_as_it_was_written() -> None:
    """A restore takes nothing from the store but what a manifest names."""
    made = manifest(7, state_file("CURRENT", "c"), state_file("000009.sst", "s"))
    assert decode_manifest(encode_manifest(made), TASK, ref_of(made)) == made


@given(st.data())
def test_any_flipped_bits_of_a_manifest_are_noticed(data: st.DataObject) -> None:
    """A damaged manifest must cost an older checkpoint, never a wrong state."""
    made = manifest(7)
    whole = encode_manifest(made)
    at = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(1, 255))
    with pytest.raises(DamagedCheckpointError):
        decode_manifest(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :], TASK, ref_of(made))


def test_a_cut_manifest_is_noticed() -> None:
    """At every length, the empty one included."""
    made = manifest(7)
    whole = encode_manifest(made)
    for length in range(len(whole)):
        with pytest.raises(DamagedCheckpointError):
            decode_manifest(whole[:length], TASK, ref_of(made))


def test_a_manifest_that_the_journal_does_not_name_is_refused() -> None:
    """It is whole, and describes another state: of a worker that was fenced, or of another task."""
    made, other = manifest(7), manifest(7, state_file("CURRENT", "other"))
    with pytest.raises(DamagedCheckpointError, match="not the one that the journal names"):
        decode_manifest(encode_manifest(other), TASK, ref_of(made))
    with pytest.raises(DamagedCheckpointError, match="describes task app/main/0"):
        decode_manifest(encode_manifest(made), TaskId("app", "main", 1), ref_of(made))


def test_a_manifest_of_another_history_is_refused() -> None:
    """Its chain value is not the one of the entry that the journal says it stands at."""
    made = manifest(7)
    ref = msgspec.structs.replace(ref_of(made), chain=b"x" * 16)
    with pytest.raises(DamagedCheckpointError, match="another history"):
        decode_manifest(encode_manifest(made), TASK, ref)


@pytest.mark.parametrize("name", ["", "../CURRENT", ".hidden", "a/b"])
def test_a_manifest_names_files_of_one_directory(name: str) -> None:
    """What a restore writes must not depend on what a store says about paths."""
    with pytest.raises(InvariantError, match="names a file"):
        encode_manifest(manifest(7, state_file(name, "c")))


@pytest.mark.parametrize(
    "wrong",
    [
        StateFile("a", -1, digest("c"), "objects/c"),
        StateFile("a", 1, digest("c")[:-1], "objects/c"),
        StateFile("a", 1, digest("c"), "manifests/c"),
    ],
    ids=["size", "digest", "object"],
)
def test_a_manifest_says_of_each_file_what_can_be_checked(wrong: StateFile) -> None:
    """Without a hash, damage would be restored; an object outside the prefix would never be deleted."""
    with pytest.raises(InvariantError, match="an invalid size, hash or object for file a"):
        encode_manifest(manifest(7, wrong))


def test_an_empty_file_is_a_file() -> None:
    """RocksDB has some."""
    made = manifest(7, StateFile("LOG", 0, digest("c"), "objects/c"))
    assert decode_manifest(encode_manifest(made), TASK, ref_of(made)) == made


def test_a_manifest_without_files_is_none() -> None:
    """An empty directory would open as an empty state."""
    with pytest.raises(InvariantError, match="names no file"):
        encode_manifest(msgspec.structs.replace(manifest(7), files=()))


def test_a_manifest_of_a_later_format_is_named_as_such() -> None:
    """After a downgrade, the log must show that the release that wrote it can read it."""
    made = manifest(7)
    later = bytearray(encode_manifest(made))
    later[2] = 3
    ref = msgspec.structs.replace(ref_of(made), digest=manifest_digest(bytes(later)))
    with pytest.raises(DamagedCheckpointError, match="format version 3; this release knows 1 to 2"):
        decode_manifest(bytes(later), TASK, ref)


def test_a_manifest_names_each_file_once() -> None:
    """One of the two would be lost."""
    with pytest.raises(InvariantError, match="twice"):
        encode_manifest(manifest(7, state_file("a", "c"), state_file("a", "d")))


# What is kept


def checkpoint_entry(kept: bytes) -> JournalEntry:
    entry = Entry(EntryKind.CHECKPOINT, 9, "w", b"n", {"in": 9}, extra={CHECKPOINTS: kept})
    return JournalEntry(entry, 18, 19, b"c" * 16, 100)


def test_what_an_entry_keeps_becomes_part_of_the_applied_position() -> None:
    """So that every owner knows it, from the journal alone."""
    kept = (ref_of(manifest(7)), ref_of(manifest(5)))
    before = AppliedPosition(8, 16, 17, b"b" * 16, {"in": 8}, IDENTITY)
    applied = after(before, checkpoint_entry(encode_kept(kept)))
    assert (applied.checkpoint, applied.checkpoints, applied.journal_bytes) == (18, kept, 100)
    following = JournalEntry(
        Entry(EntryKind.COMMIT, 10, "w", b"n", {"in": 10}, checkpoint=18, journal_bytes=100),
        20,
        21,
        b"d" * 16,
        5,
    )
    later = after(applied, following)
    assert (later.checkpoint, later.checkpoints, later.journal_bytes) == (18, kept, 105)


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01\xc1"], ids=["nothing", "newer", "damaged"])
def test_an_entry_whose_list_cannot_be_read_stops_the_task(data: bytes) -> None:
    """An owner that did not know what is kept would delete it."""
    with pytest.raises(FatalTaskError, match="checkpoint entry 9 at offset 18"):
        kept_checkpoints(checkpoint_entry(data))


def test_the_last_three_are_kept() -> None:
    """The newest may turn out to be damaged."""
    kept: tuple[CheckpointRef, ...] = ()
    for seq in (2, 4, 6, 8):
        kept = keep(ref_of(manifest(seq)), kept)
    assert [ref.seq for ref in kept] == [8, 6, 4]
    assert len(kept) == KEPT


@pytest.mark.parametrize("seq", [7, 6])
def test_an_older_checkpoint_cannot_follow_a_newer_one(seq: int) -> None:
    """The journal's beginning would move back below what was truncated."""
    with pytest.raises(InvariantError):
        keep(ref_of(manifest(seq)), (ref_of(manifest(7)),))


# What is uploaded


def upload(kept: list[Manifest | None], stored: dict[str, Listed], content: str = "s") -> list[str]:
    """The objects that are made for a state of one file."""
    plan = plan_upload([FileContent("1.sst", 10, digest(content))], kept, stored, b"new")
    assert [file.name for file in plan.files] == ["1.sst"]
    return [file.object for file in plan.new]


MADE = checkpoint_object(digest("s"), b"new")


def test_an_object_that_is_kept_and_whole_is_used_again_row_1() -> None:
    """Most of a state does not change in a minute; RocksDB may have given the file another name."""
    file = state_file("other.sst", "s")
    assert upload([None, manifest(7, file)], listed(file)) == []


@pytest.mark.parametrize("stored", [{}, listed(state_file("1.sst", "s", size=9))], ids=["missing", "cut"])
def test_an_object_that_is_kept_and_not_whole_is_made_anew_row_2(stored: dict[str, Listed]) -> None:
    """The next checkpoint uploads objects that were deleted by hand."""
    assert upload([manifest(7, state_file("1.sst", "s"))], stored) == [MADE]


def test_an_object_without_a_checkpoint_is_never_used_row_3() -> None:
    """A worker that was fenced may be about to delete it."""
    file = state_file("1.sst", "s")
    assert upload([manifest(7, state_file("2.sst", "other"))], listed(file)) == [MADE]
    assert upload([], listed(file)) == [MADE]
    assert file.object != MADE


def test_files_with_the_same_content_share_an_object() -> None:
    """An empty log and an empty table are the same bytes."""
    files = [FileContent(name, 0, digest("")) for name in ("a", "b")]
    plan = plan_upload(files, [], {}, b"new")
    assert [file.name for file in plan.files] == ["a", "b"]
    assert len(plan.new) == 1


# What may be deleted

KEPT_FILE, NEW_FILE, STRAY = state_file("k", "kept"), state_file("n", "new"), state_file("s", "stray")
KEPT_MANIFEST = manifest(5, KEPT_FILE)
KEPT_REF = ref_of(KEPT_MANIFEST)
NEW_MANIFEST = manifest(7, NEW_FILE)
NEW_REF = ref_of(NEW_MANIFEST)


def cleanup(stored: dict[str, Listed], kept: Manifest | None = KEPT_MANIFEST) -> tuple[str, ...]:
    return plan_cleanup([(NEW_REF, NEW_MANIFEST), (KEPT_REF, kept)], stored, GRACE_S)


def test_what_is_named_stays_row_1() -> None:
    """However old it is."""
    stored = {
        **listed(KEPT_FILE, NEW_FILE),
        NEW_REF.manifest: Listed(1, OLD),
        KEPT_REF.manifest: Listed(1, OLD),
    }
    assert cleanup(stored) == ()


def test_what_is_young_stays_row_2() -> None:
    """A worker may still be reading the checkpoint that was the newest before."""
    assert cleanup(listed(STRAY, age_s=YOUNG)) == ()


def test_an_object_without_a_reference_can_be_deleted_row_3() -> None:
    """Objects and manifests, of old checkpoints and of uploads that came to nothing."""
    stored = {**listed(STRAY, KEPT_FILE), "manifests/1-old": Listed(1, OLD)}
    assert cleanup(stored) == ("manifests/1-old", STRAY.object)


def test_nothing_may_go_while_a_kept_manifest_cannot_be_read_row_4() -> None:
    """The objects that it names would look unused."""
    assert cleanup(listed(STRAY, KEPT_FILE), kept=None) == ()


def test_nothing_may_go_while_nothing_is_kept_row_5() -> None:
    """A journal that was deleted and begun anew: its old checkpoints are for a person to judge."""
    assert plan_cleanup([], listed(STRAY), GRACE_S) == ()


# Truncation


@pytest.mark.parametrize("count", range(KEPT))
def test_nothing_is_truncated_below_three_checkpoints_row_1(count: int) -> None:
    """One damaged checkpoint must not be the end of a task."""
    assert truncation_offset([ref_of(manifest(9 - n)) for n in range(count)]) is None


def test_the_journal_begins_at_the_state_of_the_oldest_checkpoint_row_2() -> None:
    """That entry's chain is what a restore compares the checkpoint with."""
    oldest = ref_of(manifest(3))
    assert truncation_offset([ref_of(manifest(9)), ref_of(manifest(6)), oldest]) == oldest.offset

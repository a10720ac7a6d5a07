"""The two formats of a journal: each is checked when it is written and when it is read."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.core.entry_body import (
    Entry,
    EntryKind,
    Format,
    Identity,
    InputFacts,
    decode_body,
    encode_body,
    partitions_to_reset,
    reset_partitions,
)
from pipeline.core.journal_format import NO_CHAIN, assemble, encode_entry
from pipeline.errors import FatalTaskError, InvariantError

ONE = Identity("cluster", "murmur2_random", {"in": InputFacts("id-1", 8)}, {}, "topo")
TWO = msgspec.structs.replace(ONE, tasks=4)
IDENTITIES: dict[Format, Identity] = {1: ONE, 2: TWO}


def entry(version: Format, kind: EntryKind, seq: int, positions: dict[str, int]) -> Entry:
    return Entry(kind, seq, "w", b"n", positions, identity=IDENTITIES[version])


@pytest.mark.parametrize("version", [1, 2])
def test_a_format_reads_what_it_has_written(version: Format) -> None:
    """Either may be the format of a journal that this release continues."""
    written = entry(version, EntryKind.ACQUIRE, 2, {"in": 5, "other": 3})
    assert decode_body(encode_body(written, version), version) == written


@pytest.mark.parametrize(("version", "other"), [(1, 2), (2, 1)])
def test_an_identity_of_the_other_format_is_not_written(version: Format, other: Format) -> None:
    """A journal of two formats could be read by no release."""
    with pytest.raises(InvariantError, match=f"in format {version}"):
        encode_body(entry(other, EntryKind.ACQUIRE, 2, {}), version)


@pytest.mark.parametrize(("version", "other"), [(1, 2), (2, 1)])
def test_a_body_of_the_other_format_is_not_read(version: Format, other: Format) -> None:
    """The checksum of a chunk does not cover its version."""
    body = encode_body(entry(other, EntryKind.ACQUIRE, 2, {}), other)
    with pytest.raises(msgspec.DecodeError):
        decode_body(body, version)


def test_a_journal_keeps_its_format() -> None:
    """Keys of rows differ between formats, so a state would contain some rows twice."""
    genesis, chain = encode_entry(entry(1, EntryKind.GENESIS, 1, {}), NO_CHAIN, 1000)
    second, _ = encode_entry(entry(2, EntryKind.ACQUIRE, 2, {}), chain, 1000, 2)
    with pytest.raises(FatalTaskError, match="entry 2 has format 2, the one before 1"):
        list(assemble(enumerate([*genesis, *second]), "here"))


def after_commit(kind: EntryKind, positions: dict[str, int], extra: dict[str, bytes]) -> None:
    first, chain = encode_entry(entry(2, EntryKind.GENESIS, 1, {"in": 5, "in/1": 6}), NO_CHAIN, 1000, 2)
    changed = msgspec.structs.replace(entry(2, kind, 2, positions), extra=extra)
    second, _ = encode_entry(changed, chain, 1000, 2)
    list(assemble(enumerate([*first, *second]), "here"))


def test_only_positions_of_reset_partitions_fall() -> None:
    """A partial reset keeps the rows of the other partitions, so their records must not be processed again."""
    extra = partitions_to_reset([7])
    after_commit(EntryKind.RESET, {"in": 5, "in/1": 0}, extra)
    after_commit(EntryKind.RESET, {"in": 0, "in/1": 0}, {})
    with pytest.raises(FatalTaskError, match="position of in falls"):
        after_commit(EntryKind.RESET, {"in": 4, "in/1": 0}, extra)
    with pytest.raises(FatalTaskError, match="position of in/1 falls"):
        after_commit(EntryKind.COMMIT, {"in": 5, "in/1": 0}, extra)


def test_a_task_never_gets_another_partition() -> None:
    """A topic that has grown has moved keys away from their rows."""
    with pytest.raises(FatalTaskError, match="another partition: in/2"):
        after_commit(EntryKind.COMMIT, {"in": 5, "in/1": 6, "in/2": 0}, {})


def test_reset_partitions_are_read_as_written() -> None:
    """They decide which rows are deleted."""
    found = msgspec.structs.replace(entry(2, EntryKind.RESET, 2, {}), extra=partitions_to_reset([65_535, 7]))
    assert reset_partitions(found) == (7, 65_535)
    assert reset_partitions(msgspec.structs.replace(found, extra={})) is None


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_damaged_reset_partitions_stop_the_task(data: bytes) -> None:
    """A reset of no partition and one of all partitions are different things."""
    damaged = msgspec.structs.replace(entry(2, EntryKind.RESET, 2, {}), extra={"partitions": data})
    with pytest.raises(FatalTaskError, match="names its partitions"):
        reset_partitions(damaged)


@pytest.mark.parametrize("partitions", [[], [-1], [65_536]])
def test_impossible_partitions_are_not_reset(partitions: list[int]) -> None:
    """The list is a part of the history."""
    with pytest.raises(InvariantError, match="cannot be reset"):
        partitions_to_reset(partitions)

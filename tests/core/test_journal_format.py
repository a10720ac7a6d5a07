"""The journal's format: what was written is read, and whatever was damaged on the way is noticed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.core.journal_format import (
    CHAIN_SIZE,
    NO_CHAIN,
    Entry,
    EntryKind,
    Identity,
    InputFacts,
    JournalEntry,
    assemble,
    begins_entry,
    encode_entry,
    make_journal_entry,
)
from pipeline.errors import FatalTaskError, InvariantError

WHERE = "app.main.journal[0]"
IDENTITY = Identity(
    "cluster", "murmur2_random", {"in": InputFacts("id-1", 4)}, {"t": "str->json:int"}, "topo"
)

deltas = st.dictionaries(st.binary(min_size=4, max_size=12), st.none() | st.binary(max_size=60), max_size=4)


@st.composite
def histories(draw: st.DrawFn, min_size: int = 1) -> list[Entry]:
    """Entries 1, 2, 3, ... whose positions never fall, as a task writes them."""
    entries: list[Entry] = []
    position = 0
    for seq in range(1, draw(st.integers(min_size, 5)) + 1):
        position += draw(st.integers(0, 1000))
        entries.append(
            Entry(
                kind=EntryKind.GENESIS
                if seq == 1
                else draw(st.sampled_from([EntryKind.ACQUIRE, EntryKind.COMMIT])),
                seq=seq,
                owner=draw(st.text(max_size=5)),
                nonce=draw(st.binary(max_size=12)),
                positions={} if seq == 1 else {"in": position},
                delta=draw(deltas),
                identity=IDENTITY if seq == 1 else None,
                wall_ms=draw(st.integers(0, 2**41)),
            )
        )
    return entries


def written(entries: Sequence[Entry], max_chunk_bytes: int) -> list[tuple[int, bytes]]:
    """The entries' chunks in a journal, a marker's offset behind each entry."""
    chain, offset, chunks = NO_CHAIN, 0, []
    for entry in entries:
        parts, chain = encode_entry(entry, chain, max_chunk_bytes)
        for part in parts:
            chunks.append((offset, part))
            offset += 1
        offset += 1
    return chunks


def read(chunks: Sequence[tuple[int, bytes]], previous: JournalEntry | None = None) -> list[JournalEntry]:
    return list(assemble(chunks, WHERE, previous))


GOLDEN = Entry(
    kind=EntryKind.COMMIT,
    seq=1,
    owner="worker-1",
    nonce=b"0123456789ab",
    positions={"in": 7},
    delta={b"tttt-set": b"value", b"tttt-deleted": None},
    identity=IDENTITY,
    wall_ms=1_700_000_000_000,
)


def entry(seq: int, positions: dict[str, int] | None = None, kind: EntryKind = EntryKind.COMMIT) -> Entry:
    return Entry(kind=kind, seq=seq, owner="w", nonce=b"n", positions=positions or {})


@given(histories(), st.integers(1, 300))
def test_entries_are_read_as_they_were_written(entries: list[Entry], max_chunk_bytes: int) -> None:
    """A restore rebuilds tables and positions from nothing else."""
    found = read(written(entries, max_chunk_bytes))
    assert [item.entry for item in found] == entries


@given(histories(), st.integers(1, 300))
def test_each_entry_knows_its_place(entries: list[Entry], max_chunk_bytes: int) -> None:
    """Restores start at `next_offset`, and the applied position names `offset`: both are looked up again."""
    chunks = written(entries, max_chunk_bytes)
    found = read(chunks)
    firsts = [offset for offset, chunk in chunks if begins_entry(chunk)]
    assert [item.offset for item in found] == firsts
    lasts = [max(offset for offset, _ in chunks if offset < item.next_offset) for item in found]
    assert [item.next_offset for item in found] == [last + 1 for last in lasts]


@given(histories(), st.integers(1, 300))
def test_what_the_producer_reports_equals_what_is_read(entries: list[Entry], max_chunk_bytes: int) -> None:
    """The owner never reads its own commits back: it builds the next entry on the reported place and chain."""
    chain, offset, reported = NO_CHAIN, 0, []
    for item in entries:
        parts, chain = encode_entry(item, chain, max_chunk_bytes)
        reported.append(make_journal_entry(item, chain, offset, parts))
        offset += len(parts) + 1
    assert reported == read(written(entries, max_chunk_bytes))


@given(histories(), st.integers(1, 300))
def test_chunks_keep_to_the_size_they_were_given(entries: list[Entry], max_chunk_bytes: int) -> None:
    """A chunk above the broker's limit would make each attempt at its commit fail."""
    header = struct.calcsize(">2sBBIIQ16sI")
    parts, _ = encode_entry(entries[0], NO_CHAIN, max_chunk_bytes)
    assert all(0 < len(part) - header <= max_chunk_bytes for part in parts)


@given(histories(), st.integers(20, 300), st.data())
def test_any_flipped_bits_of_a_byte_are_noticed(
    entries: list[Entry], max_chunk_bytes: int, data: st.DataObject
) -> None:
    """A damaged journal must stop the task, never become state; its header counts as much as its payload."""
    chunks = written(entries, max_chunk_bytes)
    index = data.draw(st.integers(0, len(chunks) - 1))
    offset, chunk = chunks[index]
    at = data.draw(st.integers(0, len(chunk) - 1))
    mask = data.draw(st.integers(1, 255))
    chunks[index] = offset, chunk[:at] + bytes([chunk[at] ^ mask]) + chunk[at + 1 :]
    with pytest.raises(FatalTaskError, match="is damaged at offset"):
        read(chunks)


@pytest.mark.parametrize("max_chunk_bytes", [7, 1000])
def test_every_byte_of_a_journal_is_covered(max_chunk_bytes: int) -> None:
    """As above, for all bytes of one small journal: no field of the header is left to chance."""
    whole = written([entry(1, kind=EntryKind.GENESIS), entry(2, {"in": 3})], max_chunk_bytes)
    for index, (offset, chunk) in enumerate(whole):
        for at in range(len(chunk)):
            chunks = list(whole)
            chunks[index] = offset, chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            with pytest.raises(FatalTaskError):
                read(chunks)


@given(histories(min_size=2), st.integers(1, 300), st.data())
def test_a_lost_chunk_is_noticed(entries: list[Entry], max_chunk_bytes: int, data: st.DataObject) -> None:
    """Only an entry that is gone from the end as a whole looks like one never written: that is the broker's fsync."""
    chunks = written(entries, max_chunk_bytes)
    genesis = read(chunks)[0]
    after_genesis = [chunk for chunk in chunks if chunk[0] >= genesis.next_offset]
    lost = data.draw(st.integers(0, len(after_genesis) - 1))
    assume(not (lost == len(after_genesis) - 1 and begins_entry(after_genesis[lost][1])))
    del after_genesis[lost]
    with pytest.raises(FatalTaskError):
        read(after_genesis, genesis)


@given(histories(), st.integers(1, 300), st.data())
def test_a_doubled_chunk_is_noticed(entries: list[Entry], max_chunk_bytes: int, data: st.DataObject) -> None:
    """A producer that is not idempotent would write one; it must not be applied."""
    chunks = [chunk for _, chunk in written(entries, max_chunk_bytes)]
    again = data.draw(st.integers(0, len(chunks) - 1))
    chunks.insert(again, chunks[again])
    with pytest.raises(FatalTaskError):
        read(list(enumerate(chunks)))


@given(histories(), st.integers(1, 300), st.data())
def test_swapped_chunks_are_noticed(entries: list[Entry], max_chunk_bytes: int, data: st.DataObject) -> None:
    """Order is part of the history: chunks of one entry as well as entries."""
    whole = written(entries, max_chunk_bytes)
    assume(len(whole) > 1)
    one, other = data.draw(
        st.lists(st.integers(0, len(whole) - 1), min_size=2, max_size=2, unique=True), label="swapped"
    )
    chunks = [chunk for _, chunk in whole]
    chunks[one], chunks[other] = chunks[other], chunks[one]
    with pytest.raises(FatalTaskError):
        read([(offset, chunk) for (offset, _), chunk in zip(whole, chunks, strict=True)])


def test_offsets_that_do_not_rise_are_noticed() -> None:
    """A reader that hands a record over twice must not double what is in it."""
    chunks = written([entry(1)], 1000)
    with pytest.raises(FatalTaskError, match="offset does not rise"):
        read([*chunks, *chunks])


def test_a_chunk_apart_from_its_entry_is_noticed() -> None:
    """Chunks of one entry are one transaction, so nothing lies between them."""
    chunks = written([entry(1)], 10)
    moved = [(offset if i == 0 else offset + 5, chunk) for i, (offset, chunk) in enumerate(chunks)]
    with pytest.raises(FatalTaskError, match="does not belong"):
        read(moved)


def test_an_entry_whose_last_chunk_is_missing_is_noticed() -> None:
    """It would vanish with the commit that it is about, and the next one would seem to follow."""
    chunks = written([entry(1)], 10)
    with pytest.raises(FatalTaskError, match="ends after chunk"):
        read(chunks[:-1])


def test_an_entry_of_another_history_is_noticed() -> None:
    """Two owners that both wrote entry 2 differ in the chain, though seq and offsets agree."""
    ours, chain = encode_entry(entry(1), NO_CHAIN, 1000)
    theirs, other_chain = encode_entry(
        Entry(EntryKind.COMMIT, seq=1, owner="other", nonce=b"", positions={}), NO_CHAIN, 1000
    )
    second, _ = encode_entry(entry(2), other_chain, 1000)
    assert chain != other_chain
    with pytest.raises(FatalTaskError, match="the chain differs"):
        read([(0, ours[0]), (2, second[0])])
    assert len(read([(0, theirs[0]), (2, second[0])])) == 2


def test_the_chain_of_the_first_entry_is_checked() -> None:
    """Entry 1 has no predecessor to compare with: its chain starts from nothing."""
    body = msgspec.msgpack.encode(entry(1))
    chain = b"\x07" * CHAIN_SIZE
    crc = zlib.crc32(body, zlib.crc32(chain + (0).to_bytes(4, "big") + (1).to_bytes(4, "big")))
    forged = struct.pack(">2sBBIIQ16sI", b"XJ", 1, EntryKind.COMMIT, 0, 1, 1, chain, crc) + body
    with pytest.raises(FatalTaskError, match="the chain of entry 1 is wrong"):
        read([(0, forged)])


def test_a_journal_of_the_first_release_is_still_read() -> None:
    """The journal outlives every release: a change that cannot read these bytes loses everybody's state."""
    chunk = bytes.fromhex(
        "584a010300000000000000010000000000000001385b01a2808a3c760571fabff782e59e86855ed69a0301a8"
        "776f726b65722d31c40c30313233343536373839616281a2696e0782c408747474742d736574c40576616c75"
        "65c40c747474742d64656c65746564c095a7636c7573746572ae6d75726d7572325f72616e646f6d81a2696e"
        "92a469642d310481a174ad7374722d3e6a736f6e3a696e74a4746f706fcf0000018bcfe56800ff80"
    )
    found = read([(0, chunk)])
    assert found[0].entry == GOLDEN


def test_a_read_may_begin_in_the_middle() -> None:
    """The local state stands at some entry; only what follows is read."""
    found = read(written([entry(1), entry(2), entry(3)], 1000))
    assert read(written([entry(1), entry(2), entry(3)], 1000)[1:], found[0]) == found[1:]
    assert [item.entry.seq for item in read(written([entry(1), entry(2), entry(3)], 1000)[1:])] == [2, 3]


def test_a_gap_between_entries_is_noticed() -> None:
    """A missing entry is a missing commit."""
    chunks = written([entry(1), entry(2), entry(3)], 1000)
    with pytest.raises(FatalTaskError, match="seq 3 follows 1"):
        read([chunks[0], chunks[2]])


@pytest.mark.parametrize("positions", [{"in": 4, "other": 9}, {"in": 5}, {"other": 9}])
def test_positions_that_fall_or_vanish_are_noticed(positions: dict[str, int]) -> None:
    """Input that a commit covered would be processed again."""
    chunks = written([entry(1, {"in": 5, "other": 9}), entry(2, positions)], 1000)
    with pytest.raises(FatalTaskError, match="the position of"):
        read(chunks)


def test_a_topic_may_join_the_positions() -> None:
    """A handler for another input topic may be added to a group that has a history."""
    chunks = written([entry(1, {"in": 5}), entry(2, {"in": 5, "new": 0})], 1000)
    assert read(chunks)[1].entry.positions == {"in": 5, "new": 0}


def test_a_later_format_is_named_as_such() -> None:
    """After a downgrade the operator needs to read that the release is too old, not that data is damaged."""
    chunk = bytearray(written([entry(1)], 1000)[0][1])
    chunk[2] = 3
    with pytest.raises(
        FatalTaskError, match=r"format version 3 is unknown to this release \(it knows 1 to 2\)"
    ):
        read([(0, bytes(chunk))])


@pytest.mark.parametrize("chunk", [b"", b"XJ", b"{}" * 30])
def test_a_foreign_record_is_noticed(chunk: bytes) -> None:
    """A record may be produced to the journal by hand."""
    with pytest.raises(FatalTaskError, match="not a journal chunk"):
        read([(0, chunk)])


def test_an_error_says_where_and_what_to_follow() -> None:
    """An operator who does not know the code must understand the message."""
    with pytest.raises(FatalTaskError) as caught:
        read([(41, b"junk")])
    assert WHERE in str(caught.value)
    assert "offset 41" in str(caught.value)
    assert "runbooks/journal-check-failed.md" in str(caught.value)


@pytest.mark.parametrize(
    ("seq", "chain"), [(0, NO_CHAIN), (1, b"\x01" * CHAIN_SIZE), (2, NO_CHAIN), (2, b"\x01")]
)
def test_an_entry_out_of_line_is_not_written(seq: int, chain: bytes) -> None:
    """What cannot be read must not be written: the check comes before the commit point."""
    with pytest.raises(InvariantError):
        encode_entry(entry(seq), chain, 1000)


def test_an_empty_journal_has_no_entries() -> None:
    """A topic just created is no damage."""
    assert read([]) == []

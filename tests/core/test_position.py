"""The applied position: what a state says about itself is true or refused."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.journal_format import Entry, EntryKind, Identity, InputFacts, JournalEntry
from pipeline.core.position import AppliedPosition, after, decode_position, encode_position
from pipeline.errors import CorruptStateError, InvariantError

WHERE = "the state of task app/main/0"
IDENTITY = Identity(
    "cluster", "murmur2_random", {"in": InputFacts("id-1", 4)}, {"t": "str->json:int"}, "topo"
)
OTHER = msgspec.structs.replace(IDENTITY, topology="other")
GOLDEN = AppliedPosition(7, 20, 22, b"0123456789abcdef", {"in": 300}, IDENTITY, -1)

positions = st.builds(
    AppliedPosition,
    seq=st.integers(1, 2**63),
    offset=st.integers(0, 2**63),
    next_offset=st.integers(0, 2**63),
    chain=st.binary(min_size=16, max_size=16),
    positions=st.dictionaries(st.text(max_size=4), st.integers(0, 2**62), max_size=3),
    identity=st.sampled_from([IDENTITY, OTHER]),
    stream_time_ms=st.integers(-1, 2**41),
)


def journal_entry(seq: int, identity: Identity | None = None, stream_time_ms: int = -1) -> JournalEntry:
    entry = Entry(
        EntryKind.COMMIT, seq, "w", b"n", {"in": seq * 10}, identity=identity, stream_time_ms=stream_time_ms
    )
    return JournalEntry(entry, offset=seq * 3, next_offset=seq * 3 + 2, chain=bytes([seq]) * 16)


@given(positions)
def test_a_position_is_read_as_it_was_written(position: AppliedPosition) -> None:
    """A restore compares it with the journal, and processing continues from its input positions."""
    assert decode_position(encode_position(position), WHERE) == position


@given(positions, st.data())
def test_any_flipped_bits_of_a_byte_are_noticed(position: AppliedPosition, data: st.DataObject) -> None:
    """A state that lies about where it stands would skip or repeat commits."""
    whole = encode_position(position)
    at = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(1, 255))
    with pytest.raises(CorruptStateError, match=WHERE):
        decode_position(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :], WHERE)


def test_every_byte_is_covered() -> None:
    """As above, for all bytes of one position: version and checksum themselves included."""
    whole = encode_position(GOLDEN)
    for at in range(len(whole)):
        with pytest.raises(CorruptStateError):
            decode_position(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :], WHERE)


def test_a_cut_position_is_noticed() -> None:
    """At every length, the empty one included."""
    whole = encode_position(GOLDEN)
    for length in range(len(whole)):
        with pytest.raises(CorruptStateError):
            decode_position(whole[:length], WHERE)


def test_a_valid_checksum_over_another_shape_is_noticed() -> None:
    """A checksum says that bytes are as they were written, not that they are a position."""
    body = msgspec.msgpack.encode(["seven"])
    with pytest.raises(CorruptStateError, match="cannot be decoded"):
        decode_position(b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body, WHERE)


def test_a_position_of_the_first_release_is_still_read() -> None:
    """Local states outlive releases: one that cannot be read costs a whole restore."""
    data = bytes.fromhex(
        "01dd346e2797071416c4103031323334353637383961626364656681a2696ecd012c95a7636c7573746572ae"
        "6d75726d7572325f72616e646f6d81a2696e92a469642d310481a174ad7374722d3e6a736f6e3a696e74a474"
        "6f706fff"
    )
    assert decode_position(data, WHERE) == GOLDEN


def test_a_position_moves_to_the_entry_that_was_applied() -> None:
    """Every field but the identity is the entry's own."""
    before = after(None, journal_entry(1, IDENTITY))
    assert after(before, journal_entry(2, stream_time_ms=9)) == AppliedPosition(
        2, 6, 8, b"\x02" * 16, {"in": 20}, IDENTITY, 9
    )


def test_the_identity_is_kept_until_an_entry_brings_another() -> None:
    """Only genesis and acquire entries carry one; it is what the next start compares itself with."""
    first = after(None, journal_entry(1, IDENTITY))
    second = after(first, journal_entry(2, OTHER))
    third = after(second, journal_entry(3))
    assert (first.identity, second.identity, third.identity) == (IDENTITY, OTHER, OTHER)


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_an_entry_is_applied_only_to_the_state_before_it(seq: int) -> None:
    """Values are absolute, so applying out of order would bring back what was overwritten."""
    before = after(None, journal_entry(2, IDENTITY))
    with pytest.raises(InvariantError, match=f"entry {seq} is applied to a state at 2"):
        after(before, journal_entry(seq))


def test_a_state_without_identity_cannot_begin() -> None:
    """Nothing could be compared with it later."""
    with pytest.raises(InvariantError, match="without identity"):
        after(None, journal_entry(1))

"""Dedup tables, the pure part: what counts as seen, and where the rows of it lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.table import table_prefix
from pipeline.core.dedup import (
    DIGESTS_PER_EXPIRY,
    advance,
    clock_key,
    digest,
    digests_in,
    expiries,
    expiry_clock,
    expiry_prefix,
    expiry_start,
    forgotten,
    id_prefix,
    is_over,
    pack_clock,
    pack_state,
    topic_tag,
    unpack_clock,
    unpack_state,
)

NOW = 1_700_000_000_000
clocks = st.integers(0, 2**63 - 1)


@given(clocks, st.integers(-1, 2**63 - 1), clocks)
def test_the_clock_never_goes_back_and_no_timestamp_takes_it_beyond_the_present(
    clock_ms: int, timestamp_ms: int, wall_ms: int
) -> None:
    """One record from the year 3000 would otherwise be the end of every id that is remembered."""
    after = advance(clock_ms, timestamp_ms, wall_ms)
    assert clock_ms <= after <= max(clock_ms, wall_ms)
    if timestamp_ms >= 0:
        assert after <= max(clock_ms, timestamp_ms)


def test_a_record_without_a_timestamp_is_as_old_as_the_moment_it_is_read() -> None:
    """A topic of such records would otherwise never forget anything."""
    assert advance(NOW, -1, NOW + 5) == NOW + 5


def test_an_id_is_over_after_its_time_to_live_and_not_at_it() -> None:
    """The edge is part of what the document promises."""
    assert not is_over(NOW + 1000, NOW, 1000)
    assert is_over(NOW + 1001, NOW, 1000)


def test_no_table_has_the_rows_of_ids() -> None:
    """Both are in one store: a table whose keys begin alike would show ids as rows, or forget rows as ids."""
    ours = {make("orders") for make in (id_prefix, expiry_prefix, clock_key)}
    assert len(ours) == 3
    assert all(key[0] == 0 and key > b"\x00\x00\x00\x01" for key in ours)
    assert all(table_prefix(str(number))[0] != 0 for number in range(2000))


def test_where_rows_lie_does_not_change() -> None:
    """What is on disk and in journals was written by older releases."""
    assert topic_tag("orders").hex() == "f85164bc"
    assert id_prefix("orders") == b"\x00di" + topic_tag("orders")
    assert expiry_prefix("orders") == b"\x00dx" + topic_tag("orders")
    assert clock_key("orders") == b"\x00dc" + topic_tag("orders")
    assert digest(b"event").hex() == "c66443a0494a6d7ff46fc9e1911a2068"
    assert pack_clock(NOW) == NOW.to_bytes(8, "big")
    assert pack_state(NOW, -1) == pack_clock(NOW)
    assert pack_state(NOW, 5) == pack_clock(NOW) + pack_clock(5)
    assert [unpack_state(data) for data in (None, pack_state(NOW, -1), pack_state(NOW, 0))] == [
        (0, -1),
        (NOW, -1),
        (NOW, 0),
    ]


@given(st.lists(clocks, max_size=3 * DIGESTS_PER_EXPIRY).map(sorted))
def test_expiries_name_every_id_in_the_order_of_their_clocks(seen: list[int]) -> None:
    """What is over must be found from the front, and nothing must be left without a way to it."""
    ids = {
        id_prefix("orders") + digest(b"%d" % number): pack_clock(clock_ms)
        for number, clock_ms in enumerate(seen)
    }
    rows = list(expiries("orders", ids))
    assert [key for key, _ in rows] == sorted({key for key, _ in rows}, key=expiry_clock)
    assert [id_prefix("orders") + name for _, value in rows for name in digests_in(value)] == list(ids)
    for key, value in rows:
        newest = max(unpack_clock(ids[id_prefix("orders") + name]) for name in digests_in(value))
        assert expiry_clock(key) == newest
        assert key >= expiry_start("orders", newest)
        assert key < expiry_start("orders", newest + 1)


def test_only_rows_whose_own_time_is_over_are_forgotten() -> None:
    """An expiry may name an id that has come again since, or one that is gone."""
    rows = [(b"old", pack_clock(NOW)), (b"again", pack_clock(NOW + 900)), (b"gone", None)]
    assert list(forgotten(rows, NOW + 1001, 1000)) == [b"old"]

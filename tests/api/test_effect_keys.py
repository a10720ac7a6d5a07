"""The hashes that identify what a function is called with. They are stored in other systems and in dead letters."""

from __future__ import annotations

from pipeline.api.closed_windows import CloseRecord, closed_type
from pipeline.api.join_rows import StoredRecord
from pipeline.api.joins import _unmatched_type
from pipeline.api.ticks import TickRecord, tick_type
from pipeline.api.timers import TimerRecord, fired_type
from pipeline.core.joins import JoinEvent

KEY = b"account-1"


def test_the_hashes_of_a_closed_window_never_change() -> None:
    """A service would take the repeated effect for a new one, and a replay would not find its letter."""
    record = CloseRecord("@window/hourly", 3, 7_200_000, 3_600_000, KEY, b"1")
    closed = closed_type("shop", "main", "hourly", 3_600_000)("account-1", 1, record)
    assert closed.effect_key(2) == "31ee3081e17fbc66d9f0822dc020001e"
    assert record.topic_id == "80629acf2deb68344645b58fca47f958"


def test_the_hashes_of_a_timer_never_change() -> None:
    """A service would take the repeated effect for a new one, and a replay would not find its letter."""
    record = TimerRecord("@timer/alarms", 3, 1_000, KEY)
    fired = fired_type("shop", "main", "alarms")("account-1", 1_000, record)
    assert fired.effect_key(2) == "10e119327cbca4b90faa725df0d02915"
    assert record.topic_id == "b29ec0f5f8a4d1e1626a9e23dde5e0ed"


def test_the_hashes_of_a_call_at_regular_times_never_change() -> None:
    """A service would take the repeated effect for a new one, and a replay would not find its letter."""
    record = TickRecord("@every/size", 3, 60_000, 1, 61_000)
    tick = tick_type("shop", "main", "size")(None, 1, record)
    assert tick.effect_key(2) == "02a2c23cc6c9ddcf3fc0ce0b40f262f5"
    assert record.topic_id == "713d752a3fd9f578a1c7f1a1d05e6c4a"


def test_the_hashes_of_an_unmatched_event_never_change() -> None:
    """A service would take the repeated effect for a new one, and a replay would not find its letter."""
    record = StoredRecord("@join/paid/left", 3, KEY, JoinEvent(4_000, 9_000, False, 17, 5_000, b"1"))
    unmatched = _unmatched_type("shop", "main", "paid", "orders")("account-1", 1, record)
    assert unmatched.effect_key(2) == "d95f625be9a38c9124103148beb772ba"
    assert record.topic_id == "a4af7d5e04f86b4b6fcd79489b3bd73f"


def test_what_a_due_step_looks_like_as_a_record() -> None:
    """Errors, dead letters and replays treat it as any record."""
    close = CloseRecord("@window/hourly", 3, 7_200_000, 3_600_000, KEY, b"1")
    timer = TimerRecord("@timer/alarms", 3, 1_000, KEY)
    tick = TickRecord("@every/size", 3, 60_000, 1, 61_000)
    seen = [
        (each.topic(), each.partition(), each.offset(), each.key(), each.value(), each.timestamp())
        for each in (close, timer, tick)
    ]
    assert seen == [
        ("@window/hourly", 3, 7_200_000, KEY, b"1", (1, 7_199_999)),
        ("@timer/alarms", 3, 1_000, KEY, b"1000", (1, 1_000)),
        ("@every/size", 3, 60_000, None, b"1", (1, 61_000)),
    ]
    assert [each.headers() for each in (close, timer, tick)] == [None, None, None]

"""The clock of event time: what moves it, what holds it, and what makes an input idle."""

from __future__ import annotations

import pytest

from pipeline.core.event_time import (
    IDLE_S,
    INPUT_CHECK_S,
    ClockState,
    EventClock,
    EventTimeError,
    checked_time,
    clock_key,
    input_check_interval_s,
    pack_state,
    unpack_state,
)
from pipeline.core.inputs import row_prefix
from pipeline.errors import CorruptStateError

WALL_MS = 10_000_000


def clock_of(*topics: str, state: ClockState | None = None) -> EventClock:
    return EventClock(topics or ("orders",), state if state is not None else ClockState())


def handled(
    clock: EventClock, topic: str, *times_ms: int, now_s: float = 0.0, wall_ms: int = WALL_MS
) -> None:
    """Records of these times, in one batch, as the processor gives them to the clock."""
    newest = clock.begin(topic, wall_ms, now_s)
    for time_ms in times_ms:
        if time_ms > newest:
            newest = clock.observe(time_ms)


def checks(
    clock: EventClock, seconds: float, *topics: str, since_s: float = 0.0, wall_ms: int = WALL_MS
) -> float:
    """Checks for this long that find these topics at their ends. Returns the time of the last one."""
    now_s = since_s
    while now_s < since_s + seconds:
        now_s += INPUT_CHECK_S
        clock.checked(topics, wall_ms + int(now_s * 1000), now_s)
    return now_s


def test_the_clock_is_the_newest_time_of_the_only_input() -> None:
    """Older records do not move it back."""
    clock = clock_of()
    handled(clock, "orders", 5_000, 9_000, 2_000)
    assert clock.ms == 9_000


def test_the_input_that_is_behind_holds_the_clock() -> None:
    """With the maximum, all records of the slower input would be late."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    handled(clock, "payments", 2_000)
    assert clock.ms == 2_000
    handled(clock, "payments", 8_000)
    assert clock.ms == 5_000


def test_an_input_that_has_not_delivered_holds_the_clock() -> None:
    """Its first record may be old."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    assert clock.ms == 0


def test_the_clock_does_not_pass_the_wall_clock() -> None:
    """A record from the future would close the windows of all others."""
    clock = clock_of()
    handled(clock, "orders", WALL_MS + 60_000)
    assert clock.ms == WALL_MS
    assert clock.state({}).newest == {"orders": WALL_MS}


def test_an_input_is_idle_after_looks_of_the_whole_time() -> None:
    """A short pause is not the end of a topic."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    now_s = checks(clock, IDLE_S, "payments")
    assert (clock.ms, clock.idle) == (0, frozenset())
    checks(clock, INPUT_CHECK_S, "payments", since_s=now_s)
    assert (clock.ms, clock.idle) == (5_000, {"payments"})


def test_one_look_that_finds_records_begins_idleness_anew() -> None:
    """The input was not at its end then."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    now_s = checks(clock, IDLE_S, "payments")
    clock.checked((), WALL_MS, now_s + 1)
    checks(clock, IDLE_S, "payments", since_s=now_s + 1)
    assert clock.ms == 0


def test_a_gap_in_the_checks_begins_idleness_anew() -> None:
    """In an outage it is unknown what is in the topics, and producers may deliver late."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    clock.checked(("payments",), WALL_MS, 1.0)
    clock.checked(("payments",), WALL_MS, 1.0 + 10 * IDLE_S)
    assert clock.ms == 0


def test_an_idle_input_is_forgotten_when_the_looks_end() -> None:
    """It may have received records since the last check that succeeded."""
    clock = clock_of("orders", "payments")
    now_s = checks(clock, IDLE_S + INPUT_CHECK_S, "payments")
    handled(clock, "orders", 5_000, now_s=now_s + 3 * INPUT_CHECK_S)
    assert clock.ms == 0


def test_an_input_that_delivers_is_not_idle() -> None:
    """Its older records hold the clock from then on."""
    clock = clock_of("orders", "payments")
    now_s = checks(clock, IDLE_S + INPUT_CHECK_S, "payments")
    handled(clock, "payments", 2_000, now_s=now_s)
    handled(clock, "orders", 5_000, now_s=now_s)
    assert clock.ms == 2_000


def test_the_clock_runs_on_when_all_inputs_are_idle() -> None:
    """Otherwise the last windows would never close."""
    clock = clock_of()
    handled(clock, "orders", 5_000)
    now_s = checks(clock, IDLE_S + INPUT_CHECK_S, "orders")
    assert clock.ms == 5_000
    checks(clock, 60.0, "orders", since_s=now_s)
    assert clock.ms == 65_000


def test_the_clock_goes_to_the_newest_time_when_all_inputs_are_idle() -> None:
    """An input that was never filled must not stop the clock permanently."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    checks(clock, IDLE_S + INPUT_CHECK_S, "orders", "payments")
    assert clock.ms == 5_000


def test_an_app_without_any_record_has_no_time() -> None:
    """The wall clock says nothing about records that come later."""
    clock = clock_of()
    checks(clock, 10 * IDLE_S, "orders")
    assert clock.ms == 0


def test_a_pause_of_old_input_does_not_make_the_clock_jump() -> None:
    """After a pause in a backfill, the remainder must not be late."""
    clock = clock_of()
    handled(clock, "orders", 5_000)
    checks(clock, IDLE_S + 2 * INPUT_CHECK_S, "orders", wall_ms=1_000_000_000_000)
    assert clock.ms == 15_000


def test_the_clock_that_runs_on_does_not_pass_the_wall_clock() -> None:
    """The wall clock may have been set back."""
    clock = clock_of()
    handled(clock, "orders", 5_000)
    now_s = checks(clock, IDLE_S + INPUT_CHECK_S, "orders")
    clock.checked(("orders",), 5_500, now_s + INPUT_CHECK_S)
    assert clock.ms == 5_500


def test_the_stored_clock_continues() -> None:
    """A restart must not reopen what was closed."""
    clock = clock_of("orders", "payments")
    handled(clock, "orders", 5_000)
    handled(clock, "payments", 2_000)
    stored = unpack_state(pack_state(clock.state({"hourly": 1_000})), "here")
    assert stored == ClockState(2_000, {"orders": 5_000, "payments": 2_000}, {"hourly": 1_000})
    later = clock_of("orders", "payments", state=stored)
    handled(later, "payments", 3_000)
    assert later.ms == 3_000


def test_no_row_is_the_state_before_the_first_record() -> None:
    """A group that keeps a clock from now on has rows without one."""
    assert unpack_state(None, "here") == ClockState()


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01\xc1"])
def test_a_damaged_row_is_corrupt_state(data: bytes) -> None:
    """A clock that begins at zero would close windows twice."""
    with pytest.raises(CorruptStateError, match="the event clock of here"):
        unpack_state(data, "here")


def test_the_row_is_within_those_of_its_partition() -> None:
    """A reset of a partition deletes it with the other rows."""
    assert clock_key() == b"\x00tc"
    assert clock_key(row_prefix(7)) == b"\x01\x00\x07\x00tc"
    assert pack_state(ClockState(5, {"a": 7}, {"w": 3})) == b"\x01\x93\x05\x81\xa1a\x07\x81\xa1w\x03"


@pytest.mark.parametrize("time_ms", [-1, True, 1.0, None, "1", 1_001])
def test_a_time_that_cannot_be_used_is_refused(time_ms: object) -> None:
    """It would be in no window, or in one that never closes."""
    with pytest.raises(EventTimeError, match="the event time"):
        checked_time(time_ms, 1_000)


def test_looks_are_frequent_enough_for_a_short_time() -> None:
    """An input must be seen at its end several times before it is idle."""
    assert (input_check_interval_s(30.0), input_check_interval_s(3.0)) == (10.0, 1.0)

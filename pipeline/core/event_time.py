"""Event time: the clock of one partition number of a group, and its row. Pure.

The clock says up to which event time the input is complete, as far as that can be known. It never goes back:

    clock = max(clock, min of the newest event times of the inputs that are not idle), never above the wall clock

- An input is one partition of one input topic. Its newest time is that of the records that were handled or skipped.
- An input that has not delivered a record yet, and is not idle, holds the clock.
- An input is *idle* when each check of the last `idle_s` found its processed position at the end of its log. A failed
  check does not count: after a gap in the checks, the time starts again. An open transaction of a producer, a pause, a
  backlog, a retry and an outage are all "not at the end".
- If all inputs are idle, the clock first goes to the newest time of all, and then runs at the pace of the wall clock,
  up to the last check. It never jumps to the wall clock, so a pause in old input makes nothing late.

The clock, the newest times and the `closed` mark of each window are one row of the state. So they are in the delta of
the commit that contains what was decided by them. A clock that has moved without any effect may be lost in a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from pipeline.core.records import iso_time
from pipeline.errors import CorruptStateError

__all__ = [
    "AHEAD_MS",
    "IDLE_S",
    "INPUT_CHECK_S",
    "NEVER_MS",
    "TIMERS_SCHEMA",
    "WINDOW_SCHEMA",
    "ClockState",
    "EventClock",
    "EventTimeError",
    "checked_time",
    "clock_key",
    "input_check_interval_s",
    "pack_state",
    "unpack_state",
]

IDLE_S = 30.0
INPUT_CHECK_S = 10.0
GAP_CHECKS = 2.5  # checks are apart by at most so many intervals; otherwise some have failed
AHEAD_MS = 3_600_000
NEVER_MS = 2**63 - 1

WINDOW_SCHEMA = "window("  # the fingerprints of windows begin with it, those of tables do not
TIMERS_SCHEMA = "timers "  # the same for timers

# Below the rows of tables, above the key of the applied position, beside the rows of dedup tables (`core/dedup.py`).
_CLOCK = b"\x00tc"
_VERSION = b"\x01"


class EventTimeError(ValueError):
    """The event time of a record cannot be used."""


class ClockState(msgspec.Struct, array_like=True):
    """What is stored. `newest`: by topic. `closed`: by window, the end of the last window that is closed."""

    clock_ms: int = 0
    newest: dict[str, int] = {}
    closed: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder(order="sorted")
_decoder = msgspec.msgpack.Decoder(ClockState)


def clock_key(rows: bytes = b"") -> bytes:
    """The key of the row. `rows`: `core.inputs.row_prefix` of the partition in format 2."""
    return rows + _CLOCK


def pack_state(state: ClockState) -> bytes:
    """The value of the row."""
    return _VERSION + _encoder.encode(state)


def unpack_state(data: bytes | None, where: str) -> ClockState:
    """The stored state; an empty one if there is no row. Raises CorruptStateError with `where`."""
    if data is None:
        return ClockState()
    try:
        if data[:1] != _VERSION:
            raise CorruptStateError(f"the event clock of {where} has an unknown format")
        return _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"the event clock of {where} cannot be decoded: {error}") from error


def input_check_interval_s(idle_s: float) -> float:
    """The time between checks of the ends of the inputs."""
    return min(INPUT_CHECK_S, idle_s / 3)


def checked_time(time_ms: object, latest_ms: int) -> int:
    """An event time that may be used. Raises EventTimeError. `latest_ms`: the latest one that is allowed."""
    if type(time_ms) is not int or time_ms < 0:
        raise EventTimeError(
            f"the event time is {time_ms!r}; it must be a number of milliseconds since the epoch, 0 or more"
        )
    if time_ms > latest_ms:
        raise EventTimeError(
            f"the event time {time_ms} is too far ahead of the wall clock: times up to {latest_ms} "
            f"({iso_time(latest_ms)}) are accepted. A later one would make all other events of its partition late"
        )
    return time_ms


class EventClock:
    """The clock of one partition number. One thread.

    Attributes:
        ms: The clock; 0 before the first record.
        next_due_ms: The clock at which the first due step is due. Those that have due steps set it.
        next_timer_ms: The clock at which records wait for a due step: the first timer is due. At least `next_due_ms`.
    """

    __slots__ = (
        "_at_end_since",
        "_checked_s",
        "_held_ms",
        "_idle",
        "_idle_s",
        "_inputs",
        "_newest",
        "_ran_s",
        "_topic",
        "_wall_ms",
        "ms",
        "next_due_ms",
        "next_timer_ms",
    )

    def __init__(self, inputs: Iterable[str], state: ClockState, idle_s: float = IDLE_S) -> None:
        """`inputs`: the topics of which records move the clock."""
        self._inputs = tuple(inputs)
        self._newest = {topic: state.newest[topic] for topic in self._inputs if topic in state.newest}
        self._idle_s = idle_s
        self._at_end_since: dict[str, float] = {}
        self._idle: frozenset[str] = frozenset()
        self._checked_s: float | None = None  # the last check
        self._ran_s: float | None = None  # the last check that found all inputs idle
        self._topic = ""  # of the records that are being handled
        self._held_ms = -1  # the clock cannot pass this time while they are handled
        self._wall_ms = 0
        self.ms = state.clock_ms
        self.next_due_ms = NEVER_MS
        self.next_timer_ms = NEVER_MS

    @property
    def due(self) -> bool:
        """Whether a step is due."""
        return self.ms >= self.next_due_ms

    @property
    def timer_due(self) -> bool:
        """Whether a timer is due, for which records wait."""
        return self.ms >= self.next_timer_ms

    @property
    def idle(self) -> Collection[str]:
        """The topics whose input was idle at the last check."""
        return self._idle

    def state(self, closed: Mapping[str, int]) -> ClockState:
        """What to store. `closed`: by window."""
        return ClockState(self.ms, self._newest, dict(closed))

    def begin(self, topic: str, wall_ms: int, now_s: float) -> int:
        """Records of this topic are handled next. Returns the newest time of its input; -1 before its first record."""
        self._at_end_since.pop(topic, None)
        if self._checked_s is not None and self._is_gap(now_s):
            self._idle = frozenset()
        elif topic in self._idle:
            self._idle -= {topic}
        self._topic, self._wall_ms = topic, wall_ms
        newest = self._newest
        held = [newest.get(each, -1) for each in self._inputs if each != topic and each not in self._idle]
        self._held_ms = min(held, default=wall_ms)
        return newest.get(topic, -1)

    def observe(self, time_ms: int) -> int:
        """A record was handled or skipped whose time is above the newest of its input. Returns the newest time now."""
        wall_ms, held_ms = self._wall_ms, self._held_ms
        if time_ms > wall_ms:
            time_ms = max(wall_ms, self._newest.get(self._topic, -1))
        self._newest[self._topic] = time_ms
        reached = min(held_ms, time_ms)
        self.ms = max(self.ms, reached)
        return time_ms

    def checked(self, at_end: Collection[str], wall_ms: int, now_s: float) -> None:
        """The broker has answered: the records of the topics `at_end` are processed, those of the others are not."""
        if self._checked_s is None or self._is_gap(now_s):
            self._at_end_since, self._ran_s = {}, None
        before = self._at_end_since
        self._at_end_since = {topic: before.get(topic, now_s) for topic in self._inputs if topic in at_end}
        self._checked_s = now_s
        self._idle = frozenset(
            topic for topic, since_s in self._at_end_since.items() if now_s - since_s >= self._idle_s
        )
        busy = [self._newest.get(topic, -1) for topic in self._inputs if topic not in self._idle]
        if busy:
            self._ran_s = None
            self.ms = max(self.ms, min(*busy, wall_ms))
            return
        if not self._newest:
            return
        reached = max(self.ms, min(max(self._newest.values()), wall_ms))
        if self._ran_s is not None:
            ran_ms = int(now_s * 1000) - int(self._ran_s * 1000)
            reached = max(reached, min(reached + ran_ms, wall_ms))
        self.ms, self._ran_s = reached, now_s

    def _is_gap(self, now_s: float) -> bool:
        """Whether checks are missing before this moment."""
        since_s = self._checked_s if self._checked_s is not None else now_s
        return now_s - since_s > GAP_CHECKS * input_check_interval_s(self._idle_s)

"""What `benchmarks.timers` sets and checks: due times, and what is wrong with outputs, the journal and pauses."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.timers_worker import LATE, NEXT

__all__ = ["BOUND_S", "Drain", "Fired", "Firings", "Schedule", "judge"]

BOUND_S = 1.0  # the longest pause of the other partition
HOUR_MS = 3_600_000


class Schedule:
    """Which timer is due when. Keys and due times have different orders."""

    def __init__(self, timers: int, now_ms: int) -> None:
        self.timers = timers
        self.start_ms = now_ms - 2 * HOUR_MS  # the clock does not pass the wall clock
        self.late_ms = self.start_ms + HOUR_MS

    @staticmethod
    def key(number: int) -> str:
        """The key of a timer. Keys have the order of their numbers."""
        return f"timer-{number:010}"

    def due_ms(self, number: int) -> int:
        """Not in the first half of the hour, so that a clock that runs because input has stopped makes none due."""
        half = HOUR_MS // 2
        return self.start_ms + half + number * 7919 % self.timers * half // self.timers


class Firings:
    """Checks the committed records of the topic `fired`, in order."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._times = bytearray(schedule.timers)  # how often each one fired, at most 255
        self._last = (0, "")
        self._records: list[str] = []  # keys of the records that were published
        self._wrong = self._disordered = self._early = 0
        self.after_next = 0  # outputs that follow that of the next record
        self.count = 0
        self.last_s = 0.0
        self.next_s = 0.0  # when the output of the next record was seen

    def add(self, key: str, due_ms: int, seen_s: float) -> None:
        """One record, seen at this time of the monotonic clock."""
        self.after_next += NEXT in self._records
        if key in {LATE, NEXT}:
            self._records.append(key)
            if key == NEXT:
                self.next_s = seen_s
            return
        number = int(key.removeprefix("timer-"))
        self._times[number] = min(255, self._times[number] + 1)
        self._wrong += due_ms != self.schedule.due_ms(number)
        self._disordered += (due_ms, key) <= self._last
        self._early += not self._records
        self._last = due_ms, key
        self.count += 1
        self.last_s = seen_s

    def problems(self) -> list[str]:
        """What is wrong, once all records are read."""
        missing = self._times.count(0)
        twice = self.schedule.timers - missing - self._times.count(1)
        found = {
            "timers that did not fire": missing,
            "timers that fired more than once": twice,
            "timers that fired with a wrong due time": self._wrong,
            "timers that fired out of order": self._disordered,
            "timers that fired before the late record": self._early,
            "outputs that follow that of the next record": self.after_next,
        }
        problems = [f"{what}: {count:,}" for what, count in found.items() if count]
        if self._records != [LATE, NEXT]:
            problems.append(f"the records with outputs are {', '.join(self._records)}, not {LATE}, {NEXT}")
        return problems


@dataclass(frozen=True, slots=True)
class Drain:
    """What the journal says: commits with fired timers, these timers, and the most timers and bytes in one commit."""

    commits: int
    timers: int
    most_timers: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Fired:
    """The drain as seen from outside. `cpu_us`: per timer. `drain_s`: from the late record to the last timer.

    `quiet_s`, `pause_s`: the longest pause of partition 1 before and during the drain.
    """

    cpu_us: float
    drain_s: float
    quiet_s: float
    pause_s: float


def judge(firings: Firings, fired: Fired, drain: Drain) -> list[str]:
    """What is wrong with a round that is over."""
    problems, timers = firings.problems(), firings.schedule.timers
    if drain.timers != timers:
        problems.append(f"the journal has {drain.timers:,} timers that were removed, not {timers:,}")
    if fired.pause_s > BOUND_S:
        problems.append(f"the other partition paused for {fired.pause_s:.2f} s, more than {BOUND_S} s")
    return problems

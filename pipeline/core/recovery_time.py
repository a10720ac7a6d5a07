"""Predicts the duration of a recovery. Pure. `pipeline status`, the metric and drills all use this module.

    detection   until Kafka has removed a lost worker, and the others see it: `detection_s`
    start       of a process, until it asks for tasks
    overhead    fence, reads of the journal, acquire entry, first commit
    copy        bytes of checkpoints / speed
    replay      bytes of journal / speed

The last four depend on the machine and on its load. So each worker measures its own restores (`RecoveryMeter`) and
writes the result to the workers' topic. One restore can take twice as long as the next, and most processes do only one.
So a process writes a moving average over the processes of its worker: its own measurement counts NEWEST, what the
process before it has written counts the rest. What was never measured is the value of `DEFAULT_SPEED`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple, TypeGuard

__all__ = [
    "DEFAULT_SPEED",
    "FIRST_COMMIT_S",
    "MEMBER_HEARTBEAT_S",
    "MEMBER_SESSION_S",
    "NEWEST",
    "WATCHED_S",
    "RecoveryMeter",
    "RecoverySpeed",
    "RestoreWork",
    "TimedBytes",
    "detection_s",
    "median_speed",
    "predicted_restore_s",
]

MEMBER_SESSION_S = 10.0
WATCHED_S = 0.2  # until a peer has seen the end of a process and its note was read
MEMBER_HEARTBEAT_S = 2.0  # between two heartbeats of a member
FIRST_COMMIT_S = 0.1  # after the acquire entry
MAX_START_S = 30.0  # a longer start has waited for Kafka
# Less work than this does not show a speed: its time belongs to the overhead.
LEAST_BYTES = 1_000_000
# The weight of a process in the geometric mean with the processes before it.
NEWEST = 0.25
_KEPT = 64  # restores


class RecoverySpeed(NamedTuple):
    """How fast a worker recovers."""

    start_s: float
    overhead_s: float
    copy_bytes_per_s: float
    replay_bytes_per_s: float


# Measured on two cores and a local disk: start 1.2 s, overhead 0.2 s. The speeds are conservative.
DEFAULT_SPEED = RecoverySpeed(1.5, 0.5, 100_000_000, 40_000_000)


class TimedBytes(NamedTuple):
    """Work on some bytes, in seconds of the monotonic clock."""

    began_s: float
    ended_s: float
    size: int

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


class RestoreWork(NamedTuple):
    """What one restore has done. `overhead_s`: the seconds that were neither a copy nor a replay."""

    overhead_s: float
    copied: TimedBytes | None = None
    replayed: TimedBytes | None = None


def predicted_restore_s(
    checkpoint_bytes: int, journal_bytes: int, speed: RecoverySpeed = DEFAULT_SPEED
) -> float:
    """The seconds of a restore on an empty disk.

    Args:
        checkpoint_bytes: The size of the newest checkpoints of the tasks that one worker restores; 0 if there are none.
        journal_bytes: The bytes of the journals after them.
        speed: That of the worker.
    """
    copy_s = checkpoint_bytes / speed.copy_bytes_per_s
    return speed.overhead_s + copy_s + journal_bytes / speed.replay_bytes_per_s


def detection_s(membership_interval_s: float, join_delay_s: float, *, watched: bool = False) -> float:
    """The seconds until the others take over the tasks of a lost worker, on average.

    `watched`: its process ends on a host that lives, and a peer sees it. Otherwise, Kafka counts the session time-out
    from the last heartbeat, and the others list the members at intervals.
    """
    if watched:
        return WATCHED_S
    return MEMBER_SESSION_S - MEMBER_HEARTBEAT_S / 2 + membership_interval_s / 2 + join_delay_s


def median_speed(speeds: Iterable[RecoverySpeed]) -> RecoverySpeed:
    """The median of each value; DEFAULT_SPEED without any."""
    found = list(speeds)
    return RecoverySpeed(*map(median, zip(*found, strict=True))) if found else DEFAULT_SPEED


class RecoveryMeter:
    """Measures the restores of one process. One thread at a time.

    Tasks are restored at the same time and share disk, network and cores. So a speed is the sum of the bytes, divided
    by the time in which any task was copied or replayed.
    """

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._works: deque[RestoreWork] = deque(maxlen=_KEPT)
        self._before = DEFAULT_SPEED

    def resume(self, speed: RecoverySpeed) -> None:
        """Continue with what an earlier process of this worker has measured."""
        self._before = speed

    def started(self, seconds: float) -> None:
        """Add the duration from the start of the process until it asked for tasks, unless it waited for Kafka."""
        self._start_s = seconds if seconds <= MAX_START_S else None

    def add(self, work: RestoreWork) -> None:
        """A task was restored."""
        self._works.append(work)

    def speed(self) -> RecoverySpeed:
        """What this process and the earlier ones have measured; for the rest, DEFAULT_SPEED."""
        copied = [work.copied for work in self._works if _is_large(work.copied)]
        replayed = [work.replayed for work in self._works if _is_large(work.replayed)]
        overheads = [
            work.overhead_s
            + sum(part.seconds for part in (work.copied, work.replayed) if part and not _is_large(part))
            for work in self._works
        ]
        measured = (
            self._start_s,
            FIRST_COMMIT_S + median(overheads) if overheads else None,
            _bytes_per_s(copied),
            _bytes_per_s(replayed),
        )
        values = zip(measured, self._before, DEFAULT_SPEED, strict=True)
        return RecoverySpeed(*(_smoothed(*value) for value in values))


def _smoothed(measured: float | None, before: float, default: float) -> float:
    if measured is None:
        return before
    # Earlier processes that had nothing to measure wrote the default: it must not count as a measurement.
    return measured if before == default else measured**NEWEST * before ** (1 - NEWEST)


def _is_large(part: TimedBytes | None) -> TypeGuard[TimedBytes]:
    return part is not None and part.size >= LEAST_BYTES


def _bytes_per_s(parts: Sequence[TimedBytes]) -> float | None:
    """The mean speed over the union of their times; None without parts."""
    total = sum(part.size for part in parts)
    busy_s, end_s = 0.0, -math.inf
    for began_s, ended_s, _ in sorted(parts):
        busy_s += max(0.0, ended_s - max(began_s, end_s))
        end_s = max(end_s, ended_s)
    return total / busy_s if busy_s > 0 else None

"""The progress of a restore while it runs: `RestoreProgress`. `core/recovery_time.py` predicts its duration."""

from __future__ import annotations

import threading
from enum import Enum

from pipeline.core.names import TaskId
from pipeline.core.recovery_time import RestoreWork, TimedBytes
from pipeline.ports import Clock, Logger, task_fields

__all__ = ["RestorePhase", "RestoreProgress"]

LOG_INTERVAL_S = 2.0


class RestorePhase(Enum):
    """The phase of a restore."""

    CHOOSING = "choosing"
    COPYING = "copying"
    REPLAYING = "replaying"


class RestoreProgress:
    """The counts of one restore. Several threads may report and read at once.

    `copy_bytes`, `copied_bytes`: of a checkpoint's files. `copy_s`: how long copying took. `replay_offsets`,
    `replayed_offsets`: of the journal; markers have offsets, too. `replayed_entries`, `replayed_bytes`.
    """

    def __init__(self, task: TaskId, clock: Clock, log: Logger) -> None:
        self._task = task
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._began_s = self._phase_began_s = clock.monotonic_s()
        self._copied: TimedBytes | None = None
        self._replayed: TimedBytes | None = None
        self._next_log_s = self._phase_began_s + LOG_INTERVAL_S
        self.phase = RestorePhase.CHOOSING
        self.copy_s = 0.0
        self.copy_bytes = 0
        self.copied_bytes = 0
        self.replay_offsets = 0
        self.replayed_offsets = 0
        self.replayed_entries = 0
        self.replayed_bytes = 0

    def copying(self, total_bytes: int) -> None:
        """A checkpoint of this size is being copied, from its beginning."""
        self._begin(RestorePhase.COPYING)
        self.copy_bytes, self.copied_bytes = total_bytes, 0

    def copied(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self.copied_bytes += count
        self._log_when_due()

    def replaying(self, offsets: int) -> None:
        """So many offsets of journal are being replayed."""
        self._begin(RestorePhase.REPLAYING)
        self.replay_offsets, self.replayed_offsets = offsets, 0
        self.replayed_entries, self.replayed_bytes = 0, 0

    def replayed(self, offsets: int, size: int) -> None:
        """One entry more of `size` bytes, which ends so many offsets from the beginning."""
        self.replayed_entries += 1
        self.replayed_bytes += size
        self.replayed_offsets = offsets
        self._log_when_due()

    def ended(self) -> None:
        """The state is at the journal's end."""
        self._begin(RestorePhase.CHOOSING)

    def work(self) -> RestoreWork:
        """What was done since the beginning."""
        spans = [span for span in (self._copied, self._replayed) if span is not None]
        overhead_s = self._clock.monotonic_s() - self._began_s - sum(span.seconds for span in spans)
        return RestoreWork(overhead_s, self._copied, self._replayed)

    def seconds_left(self) -> float | None:
        """The estimate for this phase, at its average speed so far; None if there is no estimate."""
        done, total = {
            RestorePhase.CHOOSING: (0, 0),
            RestorePhase.COPYING: (self.copied_bytes, self.copy_bytes),
            RestorePhase.REPLAYING: (self.replayed_offsets, self.replay_offsets),
        }[self.phase]
        spent_s = self._clock.monotonic_s() - self._phase_began_s
        return spent_s * (total - done) / done if done else None

    def remaining_bytes(self) -> int | None:
        """The bytes that this phase must still copy or replay; None while they are unknown.

        The journal has offsets, not sizes. So the rest of a replay is estimated from the bytes per offset so far.
        """
        if self.phase is RestorePhase.COPYING:
            return max(0, self.copy_bytes - self.copied_bytes)
        done = self.replayed_offsets
        if self.phase is RestorePhase.CHOOSING or not done:
            return None
        return max(0, round(self.replayed_bytes * (self.replay_offsets - done) / done))

    def _begin(self, phase: RestorePhase) -> None:
        now = self._clock.monotonic_s()
        if self.phase is RestorePhase.COPYING:
            self.copy_s += now - self._phase_began_s
            self._copied = TimedBytes(self._phase_began_s, now, self.copied_bytes)
        elif self.phase is RestorePhase.REPLAYING:
            self._replayed = TimedBytes(self._phase_began_s, now, self.replayed_bytes)
        self.phase, self._phase_began_s = phase, now

    def _log_when_due(self) -> None:
        now = self._clock.monotonic_s()
        if now < self._next_log_s:
            return
        with self._lock:
            if now < self._next_log_s:
                return
            self._next_log_s = now + LOG_INTERVAL_S
        left = self.seconds_left()
        self._log.info(
            "restore_progress",
            **task_fields(self._task),
            phase=self.phase.value,
            copied_bytes=self.copied_bytes,
            total_bytes=self.copy_bytes,
            replayed_entries=self.replayed_entries,
            replayed_offsets=self.replayed_offsets,
            total_offsets=self.replay_offsets,
            remaining_s=None if left is None else round(left, 1),
        )

"""Runs the worker processes of `--processes`, and restarts those that end.

`Restarts` decides for one process when it is restarted, or that it is not restarted any more. `Supervisor` acts on
these decisions for each `Child`, and ends all processes when it is asked to stop. A killed process loses only work that
was not committed, and this work is repeated. So no record is lost or duplicated.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from pipeline.core.departures import DepartureRecord
from pipeline.errors import DisplacedError
from pipeline.ports import Clock, Deadline, Logger, Random
from pipeline.runtime.metrics.figures import WorkerCounters

__all__ = ["Child", "End", "Restarts", "Supervisor"]

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30.0
WELL_S = 60.0  # after this uptime, the next wait is FIRST_WAIT_S again
MAX_REFUSALS = 5
REFUSALS = frozenset({1, 2})  # exit codes of a wrong setting or a wrong command line
DISPLACED = DisplacedError.exit_code
GRACE_S = 2.0  # added to stop_timeout_s, so that a blocked worker can report its handler before it is killed
TURN_S = 0.1
REPORT_S = 1.0
_COUNTS_OF_NOW = frozenset({"live", "restoring", "standby", "failed"})
_GIVEN_UP = {
    False: "it ended repeatedly before it had a task; its own error is above",
    True: "a newer process has its worker id; its own error is above",
}
_NOTHING = WorkerCounters(**dict.fromkeys((field.name for field in fields(WorkerCounters)), 0))


@dataclass(frozen=True, slots=True)
class End:
    """The end of a process.

    Args:
        code: The exit code; negative for a signal.
        lived_s: The uptime.
        worked: Whether a task was live in it.
    """

    code: int
    lived_s: float
    worked: bool


class Restarts:
    """Decides about the restarts of one process.

    ::

        uptime of at least a minute      restart after the first wait
        5: a newer process has its id    do not restart: another supervisor runs that process
        1 or 2 before it had a task      restart, but not after the fifth time in a row
        anything else                    restart after twice the previous wait, up to half a minute

    Waits have jitter, so that processes that ended together do not restart together. An unreachable Kafka (3) is
    retried without a limit.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ends = 0
        self.refusals = 0

    def after(self, end: End) -> float | None:
        """Return the seconds until the restart. None if the process is not restarted any more."""
        if end.code == DISPLACED:
            return None
        if end.lived_s >= WELL_S:
            self._ends = 0
        refused = end.code in REFUSALS and not end.worked and end.lived_s < WELL_S
        self.refusals = self.refusals + 1 if refused else 0
        if self.refusals >= MAX_REFUSALS:
            return None
        wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(self._ends, 10))
        self._ends += 1
        return self._random.uniform(wait_s / 2, wait_s)


class Child(Protocol):
    """A worker process."""

    @property
    def pid(self) -> int: ...

    @property
    def progress(self) -> WorkerCounters | None:
        """The last report of the process."""

    @property
    def departure(self) -> DepartureRecord | None:
        """What notes the departure of the process; None before its first report."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM, if it runs."""

    def kill(self) -> None:
        """SIGKILL, if it runs."""


class _Slot:
    """One worker process and its restarts."""

    def __init__(self, name: str, start: Callable[[int], Child], clock: Clock, random: Random) -> None:
        self.name = name
        self.restarts = Restarts(random)
        self.code = 0  # of the last process
        self.child: Child | None = None
        self.departure: DepartureRecord | None = None  # of the last process
        self.due_s: float | None = 0.0  # None: not restarted any more
        self._start = start
        self._clock = clock
        self._started_s = 0.0
        self._before = _NOTHING  # of the processes before this one

    @property
    def progress(self) -> WorkerCounters:
        now = self.child.progress if self.child is not None else None
        return _sum(self._before, now) if now is not None else self._before

    @property
    def worked(self) -> bool:
        now = self.child.progress if self.child is not None else None
        return now is not None and (now.live > 0 or now.records > 0)

    def start(self) -> None:
        self._started_s = self._clock.monotonic_s()
        self.child = self._start(self.code)

    def take_end(self) -> End | None:
        """Return the end of the process once, and None otherwise."""
        if self.child is None:
            return None
        code = self.child.poll()
        if code is None:
            return None
        end = End(code, self._clock.monotonic_s() - self._started_s, self.worked)
        self.departure = self.child.departure
        before, self.code, self.child = self.progress, code, None
        self._before = WorkerCounters(
            **{
                f.name: 0 if f.name in _COUNTS_OF_NOW else getattr(before, f.name)
                for f in fields(WorkerCounters)
            }
        )
        return end


class Supervisor:
    """Runs `count` processes, named `<worker_id>-<n>`.

    `start(name, n, code)` starts process n. `code` is the exit code of the previous process n, 0 if there was none.
    `note` writes the record about a process that ended by itself; it must not wait. The other workers of the app then
    take over the tasks at once.
    """

    def __init__(
        self,
        worker_id: str,
        count: int,
        start: Callable[[str, int, int], Child],
        clock: Clock,
        random: Random,
        log: Logger,
        note: Callable[[DepartureRecord], None] = lambda _record: None,
    ) -> None:
        self._clock = clock
        self._note = note
        self._log = log
        self._worked = False
        self._places = [
            _Slot(name, lambda code, name=name, n=n: start(name, n, code), clock, random)  # type: ignore[misc]
            for n in range(1, count + 1)
            for name in [process_id(worker_id, n)]
        ]

    @property
    def progress(self) -> WorkerCounters:
        """The sum over all processes, with those before restarts."""
        total = _NOTHING
        for place in self._places:
            total = _sum(total, place.progress)
        return total

    def run(
        self,
        stop: threading.Event,
        stop_timeout_s: float,
        report: Callable[[WorkerCounters], None] | None = None,
    ) -> int:
        """Run until `stop` is set, or until no process is restarted any more. Return the exit code.

        It is 0 if every process ended with 0 after `stop`, and otherwise the code of one that did not.
        """
        next_report_s = self._clock.monotonic_s() + REPORT_S
        while not stop.is_set() and any(place.due_s is not None for place in self._places):
            self.turn()
            if report is not None and self._clock.monotonic_s() >= next_report_s:
                next_report_s = self._clock.monotonic_s() + REPORT_S
                report(self.progress)
            self._clock.sleep(TURN_S)
        return self.stop(stop_timeout_s)

    def turn(self) -> None:
        """Check which processes have ended, and start those that are due."""
        for place in self._places:
            self._worked |= place.worked
            end = place.take_end()
            if end is not None:
                self._ended(place, end)
            if place.child is None and place.due_s is not None and self._clock.monotonic_s() >= place.due_s:
                place.start()

    def stop(self, timeout_s: float) -> int:
        """Send SIGTERM to all processes, and SIGKILL to those that run after the timeout. Return the exit code."""
        deadline = Deadline(self._clock, timeout_s + GRACE_S, TURN_S)
        killed = False
        for place in self._places:
            if place.child is not None:
                place.child.terminate()
        while any(place.child is not None for place in self._places):
            for place in self._places:
                end = place.take_end()
                if end is not None and end.code == -signal.SIGTERM and not end.worked:
                    place.code = 0  # it had no signal handler yet, and had started nothing
                if place.child is not None and not killed and deadline.has_passed():
                    self._log.error("worker_killed", worker=place.name, reason="it did not stop in time")
                    place.child.kill()
            killed = deadline.has_passed()
            if any(place.child is not None for place in self._places):
                self._clock.sleep(TURN_S)
        codes = [place.code for place in self._places if place.code]
        return next((code for code in codes if code > 0), 1 if codes else 0)

    def _ended(self, place: _Slot, end: End) -> None:
        if end.code != 0 and place.departure is not None:
            self._note(place.departure)  # a process that ends with 0 has written it itself
        wait_s = place.restarts.after(end)
        # Until a process has had a task, the refusals of all processes have the same cause.
        alike = 0 if self._worked else sum(place.restarts.refusals for place in self._places)
        lived_s = round(end.lived_s, 1)
        if wait_s is None or alike >= MAX_REFUSALS:
            place.due_s = None
            self._log.error(
                "worker_not_restarted",
                worker=place.name,
                exit_status=_name_of(end.code),
                reason=_GIVEN_UP[end.code == DISPLACED],
            )
        else:
            place.due_s = self._clock.monotonic_s() + wait_s
            self._log.warning(
                "worker_exited",
                worker=place.name,
                exit_status=_name_of(end.code),
                uptime_s=lived_s,
                restart_s=round(wait_s, 1),
            )
        if alike >= MAX_REFUSALS:
            for other in self._places:
                other.due_s = None


def process_id(worker_id: str, number: int) -> str:
    """The worker id of process `number`."""
    return f"{worker_id}-{number}"


def _name_of(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _sum(one: WorkerCounters, other: WorkerCounters) -> WorkerCounters:
    return WorkerCounters(
        **{f.name: getattr(one, f.name) + getattr(other, f.name) for f in fields(WorkerCounters)}
    )

"""The progress of a demonstration, and the time limit that depends on it: `Progress`.

A fixed limit fails on a loaded machine, although the demonstration advances there, slowly.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.demo.processes import DemoError
from pipeline.ports import Clock, Deadline

__all__ = ["IDLE_S", "NoProgressError", "Progress"]

# More than three workers need to start, or one to restore its tasks from a checkpoint, on a loaded machine.
IDLE_S = 120.0
_POLL_S = 0.05


class NoProgressError(DemoError):
    """There was no progress for too long."""


class Progress:
    """Counts the results, and waits for conditions as long as there is progress.

    Progress is a new result, or a call of `step`. The workers' logs are not: a worker that only retries also logs.

    Args:
        clock: the source of time.
        count: the number of results so far.
        expected: the number of results at the end.
        idle_s: seconds without progress after which a wait fails.
    """

    def __init__(
        self, clock: Clock, count: Callable[[], int], expected: int, idle_s: float | None = None
    ) -> None:
        self._clock = clock
        self._count = count
        self._idle_s = IDLE_S if idle_s is None else idle_s
        self._began_s = clock.monotonic_s()
        self.expected = expected
        self.results = 0
        self.step()

    def step(self) -> None:
        """A part of the demonstration is complete: the time limit starts again."""
        self._deadline = Deadline(self._clock, self._idle_s, _POLL_S)

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition. Raises NoProgressError after `idle_s` without progress; `what` names the wait there."""
        self._count_results()
        while not condition():
            if not self._deadline.pause():
                seconds = self._clock.monotonic_s() - self._began_s
                raise NoProgressError(
                    f"the demonstration made no progress for {self._idle_s:.0f} s, while it waited for {what}: "
                    f"after {seconds:.0f} s, there were {self.results:,} of {self.expected:,} results",
                    hint="end other programs that need the processors, and repeat; the cause is in the logs",
                )
            self._count_results()

    def wait_for_results(self, at_rest: Callable[[], bool], lag: Callable[[], int]) -> None:
        """Wait until `at_rest` holds and all results are there, or all that can still come.

        Args:
            at_rest: whether each task has a worker.
            lag: the number of payments that no worker has processed.

        Raises:
            NoProgressError: results are missing, and their payments are not processed.
        """
        try:
            self.wait_for("the results", lambda: at_rest() and self.results >= self.expected)
        except NoProgressError:
            if not at_rest() or lag():
                raise
            # Results are lost: all payments are processed, so none will follow. The comparison counts them.

    def _count_results(self) -> None:
        count = self._count()
        if count > self.results:
            self.results = count
            self.step()

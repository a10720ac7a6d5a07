"""The health of a group's database: logged once when it becomes unreachable, and once when it answers again."""

from __future__ import annotations

from pipeline.errors import PipelineError, SinkUnreachableError
from pipeline.runtime.environment import Environment
from pipeline.runtime.outage import Outage

__all__ = ["Health"]


class Health:
    """Processing thread only."""

    def __init__(self, place: str, environment: Environment) -> None:
        self._place = place
        self._clock = environment.clock
        self._outage = Outage(
            environment.clock,
            environment.log,
            unreachable="database_unreachable",
            reachable="database_reachable",
            to_check="the database runs and can be reached",
        )
        self._problem = ""
        self._told = ""

    def unanswered(self, error: PipelineError) -> None:
        self._outage.unanswered(self._clock.monotonic_s(), error)
        refused = isinstance(error, SinkUnreachableError) and error.refused
        if not self._problem or refused:  # a more specific problem than the outage before it
            hint = error.hint or "check that it runs and can be reached. Its tasks wait; no data is lost"
            self._problem = f"the database {self._place} is unreachable: {error.message}\n  -> {hint}"

    def answered(self) -> None:
        self._outage.answered()
        self._problem = ""

    def poll_problem(self) -> str | None:
        """The problem, or empty; None if it has not changed since the last call."""
        if self._problem == self._told:
            return None
        self._told = self._problem
        return self._problem

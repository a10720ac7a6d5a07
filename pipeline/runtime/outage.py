"""Logs that Kafka or a sink's database is unreachable, for how long, and when it is reachable again.

Each is logged once, and the outage also from time to time in between.
"""

from __future__ import annotations

from pipeline.errors import PipelineError, UnreachableError
from pipeline.ports import Clock, Logger, error_fields

__all__ = ["PATIENCE_S", "Outage"]

# An answer that takes longer counts as none.
PATIENCE_S = 3.0
REPEAT_S = 10.0


class Outage:
    """Logs the outages of one server, from the results of requests. `asked_s`: when the request was sent.

    `unreachable`, `reachable`: the names of its log events. `to_check`: what the operator should check.
    """

    def __init__(
        self,
        clock: Clock,
        log: Logger,
        *,
        unreachable: str = "kafka_unreachable",
        reachable: str = "kafka_reachable",
        to_check: str = "the brokers run",
    ) -> None:
        self._clock = clock
        self._log = log
        self._unreachable = unreachable
        self._reachable = reachable
        self._to_check = to_check
        self._since_s: float | None = None
        self._next_s = 0.0

    def unanswered(self, asked_s: float, error: PipelineError | None = None) -> None:
        """A request has no answer yet or, with `error`, has failed."""
        now = self._clock.monotonic_s()
        if error is None and now - asked_s < PATIENCE_S:
            return
        if self._since_s is None:
            self._since_s = asked_s
        elif now < self._next_s:
            return
        self._next_s = now + REPEAT_S
        self._log.warning(
            self._unreachable,
            **error_fields(
                error or UnreachableError(f"no answer for {now - asked_s:.0f} s"),
                hint=f"check that {self._to_check}. The worker waits and resumes by itself; no data is lost",
            ),
            unreachable_s=round(now - self._since_s, 1),
        )

    @property
    def seconds(self) -> float:
        """The duration of the outage so far; 0 without one."""
        return 0.0 if self._since_s is None else self._clock.monotonic_s() - self._since_s

    def answered(self) -> None:
        if self._since_s is not None:
            seconds = round(self._clock.monotonic_s() - self._since_s, 1)
            self._log.warning(self._reachable, unreachable_s=seconds)
            self._since_s = None

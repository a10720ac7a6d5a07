"""Logs that Kafka or a sink's database is unreachable, for how long, and when it is reachable again.

Each is logged once, and the outage also from time to time in between.
"""

from __future__ import annotations

from pipeline.ports import Clock, Logger

__all__ = ["PATIENCE_S", "Outage"]

# An answer that takes longer counts as none.
PATIENCE_S = 3.0
REPEAT_S = 10.0


class Outage:
    """Receives the outcome of requests. `asked_s`: when the request was sent, by the same clock.

    `away`, `back`: the names of its log events. `name`: the service. `runs`: what the operator should check.
    """

    def __init__(
        self,
        clock: Clock,
        log: Logger,
        *,
        away: str = "kafka_unreachable",
        back: str = "kafka_reachable",
        name: str = "Kafka",
        runs: str = "the brokers run",
    ) -> None:
        self._clock = clock
        self._log = log
        self._away = away
        self._back = back
        self._name = name
        self._runs = runs
        self._since_s: float | None = None
        self._next_s = 0.0

    def unanswered(self, asked_s: float, reason: str = "") -> None:
        """A request has no answer yet or, with `reason`, has failed."""
        now = self._clock.monotonic_s()
        if not reason and now - asked_s < PATIENCE_S:
            return
        if self._since_s is None:
            self._since_s = asked_s
        elif now < self._next_s:
            return
        self._next_s = now + REPEAT_S
        self._log.warning(
            self._away,
            reason=reason or f"no answer for {now - asked_s:.0f} s",
            seconds=round(now - self._since_s, 1),
            next=f"the worker waits and goes on by itself, and nothing is lost; check that {self._runs}",
        )

    def answered(self) -> None:
        if self._since_s is not None:
            seconds = round(self._clock.monotonic_s() - self._since_s, 1)
            self._log.warning(self._back, reason=f"{self._name} answers again", seconds=seconds)
            self._since_s = None

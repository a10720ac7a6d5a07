"""Says that Kafka is away, for how long, and that it is back: once each, and now and then in between."""

from __future__ import annotations

from pipeline.ports import Clock, Logger

__all__ = ["PATIENCE_S", "Outage"]

# An answer that takes longer than this is no answer.
PATIENCE_S = 3.0
REPEAT_S = 10.0


class Outage:
    """Told how requests to the cluster fare. `asked_s`: when the request was made, on the same clock."""

    def __init__(self, clock: Clock, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._since_s: float | None = None
        self._next_s = 0.0

    def unanswered(self, asked_s: float, reason: str = "") -> None:
        """There is no answer yet, or (with `reason`) there will be none."""
        now = self._clock.monotonic_s()
        if not reason and now - asked_s < PATIENCE_S:
            return
        if self._since_s is None:
            self._since_s = asked_s
        elif now < self._next_s:
            return
        self._next_s = now + REPEAT_S
        self._log.warning(
            "kafka_unreachable",
            reason=reason or f"no answer for {now - asked_s:.0f} s",
            seconds=round(now - self._since_s, 1),
            next="the worker waits and goes on by itself, and nothing is lost; check that the brokers run",
        )

    def answered(self) -> None:
        if self._since_s is not None:
            seconds = round(self._clock.monotonic_s() - self._since_s, 1)
            self._log.warning("kafka_reachable", reason="Kafka answers again", seconds=seconds)
            self._since_s = None

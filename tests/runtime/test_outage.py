"""An outage of Kafka is said when it begins, while it lasts, and when it is over."""

from __future__ import annotations

from typing import Any

from pipeline.errors import UnreachableError
from pipeline.runtime.outage import Outage
from pipeline.testing import ManualClock
from tests.support.runtime.sums import Sums


class Log:
    """Keeps what is warned of."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    info = error = warning


def test_a_worker_says_that_kafka_is_away_and_that_it_is_back() -> None:
    """The operator of an idle worker must see at once that Kafka is unreachable."""
    sums = Sums.begun()
    for reason in ("brokers away", "still away"):
        sums.driver.broker.fail_next("describe", UnreachableError(reason), where="numbers")
        sums.driver.clock.advance(15)
        sums.send(2)
        sums.driver.run()
    sums.driver.clock.advance(15)
    sums.driver.run()
    said = [
        entry for name in ("kafka_unreachable", "kafka_reachable") for entry in sums.driver.log_events(name)
    ]
    assert [entry.get("message") for entry in said] == ["brokers away", "still away", None]
    assert said[0]["error"] == "UnreachableError"
    assert "The worker waits and resumes by itself" in said[0]["hint"]
    assert 30 <= said[-1]["unreachable_s"] < 45
    sums.check()


def test_a_request_without_an_answer_is_an_outage_before_it_times_out() -> None:
    """Requests time out after ten seconds, which is long for a user who waits."""
    clock, log = ManualClock(), Log()
    outage = Outage(clock, log)
    asked = clock.monotonic_s()
    for _ in range(60):
        outage.unanswered(asked)
        clock.advance(0.25)
    assert [fields["unreachable_s"] for _, fields in log.said] == [3.0, 13.0]
    assert log.said[0][1]["message"] == "no answer for 3 s"


def test_a_slow_answer_is_no_outage() -> None:
    """A second is long and nothing to wake anybody for."""
    clock, log = ManualClock(), Log()
    outage = Outage(clock, log)
    asked = clock.monotonic_s()
    clock.advance(1)
    outage.unanswered(asked)
    outage.answered()
    assert log.said == []

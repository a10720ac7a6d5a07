"""Sessions and joins on a real Kafka: a worker is killed again and again, and the input stops."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.session_pairs import GAP_S, GRACE_S, WITHIN_S
from tests.support.kafka.timed_events import TimedEvents
from tests.support.runtime.join_app import JoinFold
from tests.support.runtime.session_fold import SessionFold
from tests.support.waiting import wait_until

# Closed sessions and unmatched events have no record of an input.
pytestmark = [pytest.mark.kafka, pytest.mark.unverified]

EVENTS = 200


class Pairs(TimedEvents):
    """A test ends when all sessions are closed, and all events are matched or unmatched."""

    def ended(self) -> tuple[int, int]:
        """The number of events that are in closed sessions or late, and of those that are matched or unmatched."""
        counted = sum(len(value["numbers"]) for _, value in self.read("closed")) + len(self.read("late"))
        matched = {(side, number) for _, pair in self.read("matched") for side, number in enumerate(pair)}
        return counted, len(matched) + len(self.read("unmatched"))

    def wait_for(self, events: int) -> None:
        wait_until(lambda: min(self.ended()) >= events, self.log.read_text)

    def check(self) -> None:
        """Compare with folds over the same events and clocks."""
        sessions: dict[str, SessionFold] = defaultdict(
            lambda: SessionFold(int(GAP_S * 1000), int(GRACE_S * 1000))
        )
        joins: dict[str, JoinFold] = defaultdict(lambda: JoinFold(int(WITHIN_S * 1000), int(GRACE_S * 1000)))
        for key, event in self.read("seen"):
            at_ms = self.sent[event["n"]][1]
            sessions[key].add(event["n"], at_ms, event["clock_ms"])
            joins[key].add(event["side"], event["n"], at_ms, event["clock_ms"])
        closed = Counter(
            (key, value["start_ms"], value["last_ms"], tuple(value["numbers"]))
            for key, value in self.read("closed")
        )
        assert closed == Counter((key, *each) for key, fold in sessions.items() for each in fold.sessions())
        late = Counter(value["n"] for _, value in self.read("late"))
        assert late == Counter(number for fold in sessions.values() for number in fold.late)
        matched = Counter(tuple(value) for _, value in self.read("matched"))
        assert matched == Counter(pair for fold in joins.values() for pair in fold.pairs)
        unmatched = Counter(tuple(value) for _, value in self.read("unmatched"))
        assert unmatched == Counter(each for fold in joins.values() for each in fold.alone())


@pytest.fixture
def pairs(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Pairs]:
    """Without events and without a worker."""
    made = Pairs(
        kafka.bootstrap_servers,
        unique_name[-40:].strip("-"),
        tmp_path,
        "tests.support.kafka.session_pairs:app",
        ("seen", "closed", "late", "matched", "unmatched"),
        ("left", "right"),
    )
    yield made
    made.close()


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.kills)])
def test_sessions_and_pairs_are_exact_after_kills_and_when_the_input_stops(pairs: Pairs, kills: int) -> None:
    """Each event is in one session or late once, and has its pairs or is unmatched once. The last ones end, too."""
    for _ in range(kills):
        pairs.send(EVENTS)
        pairs.start()
        pairs.wait_for(min(pairs.ended()) + EVENTS // 4)
        pairs.send(EVENTS)
        pairs.kill()
    pairs.start()
    pairs.wait_for(len(pairs.sent))
    pairs.check()

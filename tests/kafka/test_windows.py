"""Windows on a real Kafka: a worker is killed again and again, and the input stops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.timed_events import TimedEvents
from tests.support.waiting import wait_until

# A closed window is made from several records.
pytestmark = [pytest.mark.kafka, pytest.mark.unverified]

KILLS, EVENTS = 4, 400


class Counts(TimedEvents):
    """A test ends when all windows are closed."""

    def counted(self) -> int:
        """The number of events that are in closed windows or late."""
        return sum(len(value["numbers"]) for _, value in self.read("closed")) + len(self.read("late"))

    def wait_for(self, events: int) -> None:
        wait_until(lambda: self.counted() >= events, self.log.read_text)

    def check(self) -> None:
        """Compare with a fold over the events that are not late."""
        late = [value["n"] for _, value in self.read("late")]
        assert len(late) == len(set(late))
        expected: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number, (key, at_ms) in self.sent.items():
            if number not in late:
                expected[key, at_ms - at_ms % 1000].append(number)
        closed = [(key, value["start_ms"], value["numbers"]) for key, value in self.read("closed")]
        assert len(closed) == len(expected)
        assert {(key, start_ms): numbers for key, start_ms, numbers in closed} == expected


@pytest.fixture
def counts(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Counts]:
    """Without events and without a worker."""
    made = Counts(
        kafka.bootstrap_servers,
        unique_name[-40:].strip("-"),
        tmp_path,
        "tests.support.kafka.window_counts:app",
        ["closed", "late"],
    )
    yield made
    made.close()


def test_windows_are_exact_after_kills_and_when_the_input_stops(counts: Counts) -> None:
    """Each event is in one closed window or late once. The last windows close although no event follows."""
    for _ in range(KILLS):
        counts.send(EVENTS)
        counts.start()
        counts.wait_for(counts.counted() + EVENTS // 4)
        counts.send(EVENTS)
        counts.kill()
    counts.start()
    counts.wait_for(len(counts.sent))
    counts.check()

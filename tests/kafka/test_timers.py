"""Timers on a real Kafka: a worker is killed again and again while timers fire, and the input stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.producing import ordered_producer
from tests.support.kafka.timed_events import PARTITIONS, TimedEvents
from tests.support.runtime.timer_app import START_MS, Happened, Order, TimerFold
from tests.support.waiting import wait_until

# Outputs of timers are made from no record.
pytestmark = [pytest.mark.kafka, pytest.mark.unverified]

KILLS, ORDERS = 3, 300


class Alarms(TimedEvents):
    """The topics of one test, and its orders by partition."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        super().__init__(servers, prefix, directory, "tests.support.kafka.timer_log:app", ["log"], ["orders"])
        self.orders: dict[int, dict[int, Order]] = {partition: {} for partition in range(PARTITIONS)}

    def send(self, count: int) -> None:
        """Orders that set, move and cancel the timers of a few keys, about a second of event time apart."""
        producer = ordered_producer(self.servers)
        choose, before = self._random.choice, sum(map(len, self.orders.values()))
        for number in range(before, before + count):
            partition = choose(range(PARTITIONS))
            at_s = 200 + number // PARTITIONS
            due_s = None if choose(range(8)) == 0 else at_s + choose([-5, 0, 1, 3, 8])
            order = Order(number, f"k{choose(range(40))}-{partition}", due_s)
            self.orders[partition][number] = order
            producer.produce(
                f"{self.prefix}-orders",
                msgspec.json.encode(order),
                str(partition),
                partition,
                timestamp=START_MS + at_s * 1000,
            )
        assert producer.flush(60) == 0

    def happened(self) -> dict[str, list[Happened]]:
        found: dict[str, list[Happened]] = {str(partition): [] for partition in range(PARTITIONS)}
        for key, value in self.read("log"):
            found[key].append(msgspec.convert(value, Happened))
        return found

    def fired(self) -> int:
        return sum(bool(each.key) for log in self.happened().values() for each in log)

    def check(self) -> None:
        """Compare with a fold over the orders. Raises AssertionError, also while something is missing."""
        for partition, log in self.happened().items():
            TimerFold().check(log, self.orders[int(partition)])

    def is_complete(self) -> bool:
        try:
            self.check()
        except (AssertionError, StopIteration):
            return False
        return True


@pytest.fixture
def alarms(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Alarms]:
    """Without orders and without a worker."""
    made = Alarms(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()


def test_timers_are_exact_after_kills_and_when_the_input_stops(alarms: Alarms) -> None:
    """Each timer fires once, at its time, before the next record. The last ones fire although no record follows."""
    for _ in range(KILLS):
        alarms.send(ORDERS)
        alarms.start()
        fired = alarms.fired()
        wait_until(lambda before=fired: alarms.fired() > before + ORDERS // 10, alarms.log.read_text)  # type: ignore[misc]
        alarms.send(ORDERS)
        alarms.kill()
    alarms.start()
    wait_until(alarms.is_complete, alarms.log.read_text)
    alarms.check()

"""`Reader` on the real broker: rows of real workers, the own write, and a worker that is killed."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import App, KafkaSettings, Producer, QueryError, Reader, Settings
from pipeline.config import HttpSettings
from tests.conftest import KafkaUnderTest
from tests.support.kafka.fleet_harness import FleetBench, Process
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

PARTITIONS, TASKS = 6, 3
DEADLINE_S = 60.0
TOKEN = "a-word"  # noqa: S105 - of these tests


class Amount(msgspec.Struct, frozen=True):
    """An input, as in the workers' app."""

    n: int


class Sum(msgspec.Struct, frozen=True):
    """A row."""

    count: int
    total: int


class Shop:
    """The workers' app, as another program declares it."""

    def __init__(self, prefix: str) -> None:
        self.app = App(prefix)
        self.amounts = self.app.topic(f"{prefix}-amounts", key=str, value=Amount)
        self.totals = self.app.table("totals", key=str, value=Sum)
        self.app.handler(self.amounts)(lambda _event, _ctx: None)


@pytest.fixture
def fleet(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[FleetBench]:
    fleet = FleetBench.with_topics(kafka.bootstrap_servers, unique_name, tmp_path, PARTITIONS, TASKS)
    fleet.bench.environment["PIPELINE_HTTP_TOKEN"] = TOKEN
    yield fleet
    fleet.close()


def start(fleet: FleetBench, worker: str) -> Process:
    """Start a worker with an HTTP port."""
    fleet.bench.environment["PIPELINE_HTTP_PORT"] = str(free_port())
    return fleet.start(worker)


def settings(fleet: FleetBench, token: str = TOKEN) -> Settings:
    return Settings(KafkaSettings(fleet.bench.servers), http=HttpSettings(token=token))


def expected(fleet: FleetBench) -> dict[str, Sum]:
    """The rows by a fold of the input."""
    counts, sums = Counter[str](), Counter[str]()
    for key, number in fleet.bench.sent:
        counts[key] += 1
        sums[key] += number
    return {key: Sum(counts[key], sums[key]) for key in counts}


def wait_for_rows(fleet: FleetBench, reader: Reader, shop: Shop) -> None:
    """Wait until the rows contain all inputs: a worker applies a commit after its outputs can be read."""
    rows = expected(fleet)
    wait_until(
        lambda: {key: reader.get(shop.totals, key, timeout_s=DEADLINE_S).value for key in rows} == rows,
        fleet.story,
    )


def test_rows_of_all_workers_are_read_and_the_own_write_is_in_the_next_answer(fleet: FleetBench) -> None:
    """A web service sends an event, and shows the total with it."""
    first, second = start(fleet, "a"), start(fleet, "b")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    assert first.live_tasks()
    assert second.live_tasks()
    fleet.bench.wait_for_outputs(first.child)
    shop = Shop(fleet.bench.prefix)
    with Reader(shop.app, settings(fleet)) as reader, Producer(settings(fleet)) as producer:
        wait_for_rows(fleet, reader, shop)
        assert reader.get(shop.totals, "unknown", timeout_s=DEADLINE_S).value is None
        for number in range(50):
            key = f"new-{number % 5}"
            answer = reader.get(
                shop.totals, key, after=producer.send(shop.amounts, key, Amount(1)), timeout_s=DEADLINE_S
            )
            assert answer.value == Sum(number // 5 + 1, number // 5 + 1)
        with (
            Reader(shop.app, settings(fleet, "wrong")) as stranger,
            pytest.raises(QueryError, match="token is wrong"),
        ):
            stranger.get(shop.totals, "unknown")


def test_a_killed_worker_costs_the_time_of_the_take_over_and_no_wrong_answer(fleet: FleetBench) -> None:
    """The reader must not keep the address of a worker that is gone."""
    killed, other = start(fleet, "a"), start(fleet, "b")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    fleet.bench.wait_for_outputs(other.child)
    shop = Shop(fleet.bench.prefix)
    with Reader(shop.app, settings(fleet)) as reader:
        rows = expected(fleet)
        wait_for_rows(fleet, reader, shop)
        killed.child.send_signal(signal.SIGKILL)
        killed.child.wait()
        assert {key: reader.get(shop.totals, key, timeout_s=DEADLINE_S).value for key in rows} == rows

"""A table with a time-to-live and a history on a real Kafka: a worker is killed while rows expire."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores, state_directories
from tests.conftest import KafkaUnderTest
from tests.support.kafka.expiring_counts import KEEP_MS, TTL_MS, Seen
from tests.support.kafka.timed_events import PARTITIONS, TimedEvents
from tests.support.waiting import wait_until

# What an event sees is made from several records.
pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.unverified]

KILLS, EVENTS = 3, 400


class Expiring(TimedEvents):
    """A test ends when all rows are deleted."""

    def seen(self) -> list[tuple[str, Seen]]:
        return [(key, msgspec.convert(value, Seen)) for key, value in self.read("seen")]

    def rows(self) -> int:
        """The number of rows on disk, with entries of the index and without clocks."""
        return sum(
            not key.endswith(b"\x00tc")
            for directory in state_directories(self.state_dir)
            for number in range(PARTITIONS)
            for key in self._keys(RocksStores(directory, 1 << 20), TaskId(self.prefix, "main", number))
        )

    def _keys(self, stores: RocksStores, task: TaskId) -> list[bytes]:
        if not stores.exists(task):
            return []
        with closing(stores.open_read_only(task)) as store:
            return [key for key, _ in store.scan(b"")]


@pytest.fixture
def expiring(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Expiring]:
    """Without events and without a worker."""
    made = Expiring(
        kafka.bootstrap_servers,
        unique_name[-40:].strip("-"),
        tmp_path,
        "tests.support.kafka.expiring_counts:app",
        ["seen"],
    )
    yield made
    made.close()


def test_rows_expire_exactly_across_kills_and_when_the_input_stops(expiring: Expiring) -> None:
    """Each event sees what a fold gives; in the end, nothing is stored, although no event follows."""
    for _ in range(KILLS):
        expiring.send(EVENTS)
        expiring.start()
        before = len(expiring.seen())
        wait_until(lambda: len(expiring.seen()) >= before + EVENTS // 4, expiring.log.read_text)  # noqa: B023
        expiring.send(EVENTS)
        expiring.kill()
    expiring.start()
    wait_until(lambda: len(expiring.seen()) >= len(expiring.sent), expiring.log.read_text)
    wait_until(lambda: expiring.rows() == 0, expiring.log.read_text)
    check(expiring)


def check(expiring: Expiring) -> None:
    """Compare with a fold. The order of the events of a key, and the clock that each saw, are in the outputs."""
    rows: dict[str, tuple[int, int]] = {}  # number, and time of the last write
    kept: dict[str, list[tuple[int, int]]] = defaultdict(list)  # time and number
    found = expiring.seen()
    assert sorted(seen.n for _, seen in found) == sorted(expiring.sent)
    for key, seen in found:
        number, written_ms = rows.get(key, (None, 0))
        assert seen.row == (number if seen.clock_ms < written_ms + TTL_MS else None)
        assert seen.added == (seen.at_ms >= seen.clock_ms - KEEP_MS)
        if seen.added:
            kept[key] = sorted([*kept[key], (seen.at_ms, seen.n)], key=lambda item: item[0])
        first_ms = max(seen.at_ms - KEEP_MS, seen.clock_ms - KEEP_MS)
        assert seen.numbers == [n for at_ms, n in kept[key] if first_ms <= at_ms <= seen.at_ms]
        rows[key] = seen.n, max(seen.at_ms, seen.clock_ms)
    assert any(seen.row is None for _, seen in found)
    assert any(seen.row is not None for _, seen in found)

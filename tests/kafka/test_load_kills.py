"""`pipeline produce` on a real Kafka, killed in the middle of a file: every row is written exactly once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import msgspec
import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ops.loading.loader import LOADS, find_topic
from pipeline.ops.loading.positions import LoadPosition, decode_position
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.checker import Checker, KafkaLog
from tests.support.kafka.kill_load_at import Point

pytestmark = pytest.mark.kafka

ROWS = 2_000
BATCH = 25
PARTITIONS = 3
DEADLINE_S = 60.0
# The maximum time until the markers of a decided transaction are in all of its partitions.
MARKERS_S = 30.0


class Load:
    """A load of rows into one topic, from a number of files of different lengths."""

    def __init__(self, servers: str, topic: str, directory: Path, files: int = 1) -> None:
        self._topic = topic
        self._log = directory / "produce.log"
        folder = directory / "rows"
        folder.mkdir()
        cuts = [ROWS * n * n // (files * files) for n in range(files + 1)]
        for number, (begin, end) in enumerate(pairwise(cuts)):
            rows = "".join(f"key-{n % 97},{n}\n" for n in range(begin, end))
            (folder / f"{number:04}.csv").write_text("key,n\n" + rows)
        self._arguments = (
            "produce", topic, str(folder), "--key", "key", "--batch", str(BATCH), "--name", topic, "--kafka", servers,
        )  # fmt: skip
        self._reader = KafkaJournalReader(KafkaSettings(servers))
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create([TopicSpec(topic, PARTITIONS)])
        find_topic(cluster, topic)
        cluster.close()
        self._committed = KafkaLog(servers, {topic, LOADS.topic}.__contains__)
        self._checker = Checker(self._committed)

    def kill_at(self, point: Point, nth: int = 1) -> None:
        """Run the load until it kills itself, and check that it left complete transactions with their position."""
        assert self._run("tests.support.kafka.kill_load_at", point.name, str(nth)) == -signal.SIGKILL, (
            self._said()
        )
        self.check()

    def finish(self) -> None:
        """Run the load to its end, and check that every row is in the topic once."""
        assert self._run("pipeline") == 0, self._said()
        assert self.check() == ROWS

    def check(self) -> int:
        """Check that the topic has the rows up to the committed position once, in order. Returns their number."""
        self._checker.check(settle_s=MARKERS_S)
        deadline = time.monotonic() + MARKERS_S
        while True:
            position = self._position()
            wanted = list(range(position.records if position is not None else 0))
            found = [self._rows(number) for number in range(PARTITIONS)]
            if sorted(chain(*found)) == wanted or time.monotonic() > deadline:
                break
        assert sorted(chain(*found)) == wanted
        assert all(rows == sorted(rows) for rows in found)
        return len(wanted)

    def close(self) -> None:
        """Close the clients."""
        self._committed.close()
        self._reader.close()

    def _run(self, module: str, *arguments: str) -> int:
        with self._log.open("ab") as log:
            return subprocess.run(
                [sys.executable, "-m", module, *arguments, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=DEADLINE_S,
                check=False,
            ).returncode

    def _said(self) -> str:
        return self._log.read_text()

    def _position(self) -> LoadPosition | None:
        found = [decode_position(data, self._topic) for data in self._values(LOADS) if data]
        return next((position for position in reversed(found) if position is not None), None)

    def _rows(self, number: int) -> list[int]:
        return [msgspec.json.decode(data)["n"] for data in self._values(TopicPartition(self._topic, number))]

    def _values(self, partition: TopicPartition) -> list[bytes]:
        bounds = self._reader.bounds(partition)
        return [data for _, data in self._reader.read(partition, bounds.start, bounds.stable_end)]


@pytest.fixture
def load(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Load]:
    """A load that has not started."""
    made = Load(kafka.bootstrap_servers, unique_name, tmp_path)
    yield made
    made.close()


def test_kills_at_each_point_of_one_load_lose_and_double_no_row(load: Load) -> None:
    """A job may be killed at any point of a file, and its restart must continue at the committed row."""
    for point in Point:
        load.kill_at(point, 1 if "FENCE" in point.name else 3)
    load.finish()


@pytest.mark.kills
@pytest.mark.parametrize("point", Point)
def test_kills_at_each_point_of_a_load_of_many_files_lose_and_double_no_row(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, point: Point
) -> None:
    """A transaction may contain rows of several files, so its position spans files, too."""
    load = Load(kafka.bootstrap_servers, unique_name, tmp_path, files=60)
    for nth in (1, 1, 1) if "FENCE" in point.name else (1, 5, 30, 2):
        load.kill_at(point, nth)
    load.finish()
    load.close()


@pytest.mark.kills
@pytest.mark.parametrize("point", Point)
def test_three_kills_in_a_row_at_each_point_lose_and_double_no_row(load: Load, point: Point) -> None:
    """A restart must also survive a kill at the point where the first run was killed."""
    for nth in (1, 1, 1) if "FENCE" in point.name else (4, 1, 2):
        load.kill_at(point, nth)
    load.finish()

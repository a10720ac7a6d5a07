"""Windows on a real Kafka: a worker is killed again and again, and the input stops."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.waiting import wait_until

# A closed window is made from several records.
pytestmark = [pytest.mark.kafka, pytest.mark.unverified]

PARTITIONS, KILLS, EVENTS = 3, 4, 400
BEGIN_MS = int(time.time()) * 1000 - 3_600_000


class Counts:
    """The topics of one test, its events, and its worker process. A test ends when all windows are closed."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        self.servers, self.prefix = servers, prefix
        self.sent: dict[int, tuple[str, int]] = {}  # key and time of each event
        self.log = directory / "worker.log"
        self._state_dir = directory / "state"
        self._random = random.Random(prefix)
        self._worker: subprocess.Popen[bytes] | None = None
        self._reader = KafkaJournalReader(KafkaSettings(servers))
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create([TopicSpec(f"{prefix}-{name}", PARTITIONS) for name in ("events", "closed", "late")])
        cluster.close()

    def send(self, count: int) -> None:
        """Events of about 20 ms of event time each; some are out of order, and a few of them by too much."""
        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
            }
        )
        for _ in range(count):
            number = len(self.sent)
            key = f"key-{self._random.randrange(12)}"
            at_ms = BEGIN_MS + number * 20 - self._random.choice([0, 0, 0, 100, 300, 5_000])
            self.sent[number] = key, at_ms
            value = msgspec.json.encode({"n": number, "at_ms": at_ms})
            producer.produce(f"{self.prefix}-events", value, key)
        assert producer.flush(30) == 0

    def start(self) -> None:
        environment = {**os.environ, "COUNTS_PREFIX": self.prefix, "PIPELINE_INPUT_IDLE_S": "2"}
        command = [
            "-m",
            "pipeline",
            "worker",
            "tests.support.kafka.window_counts:app",
            "--kafka",
            self.servers,
        ]
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, *command, "--state-dir", str(self._state_dir)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()

    def read(self, name: str) -> list[tuple[str, Any]]:
        """Key and value of the committed records of a topic."""
        places = [TopicPartition(f"{self.prefix}-{name}", number) for number in range(PARTITIONS)]
        left = {place: end for place, end in self._reader.stable_ends(places).items() if end}
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "reader", "isolation.level": "read_committed"}
        )
        found = []
        try:
            consumer.assign([ClientPartition(*place, 0) for place in left])
            deadline = time.monotonic() + 60
            while left:
                assert time.monotonic() < deadline, f"cannot be read: {left}"
                for message in consumer.consume(10_000, 0.1):
                    assert message.error() is None, message.error()
                    key, value = message.key() or b"", message.value() or b""
                    found.append((key.decode(), msgspec.json.decode(value)))
                for at in consumer.position([ClientPartition(*place) for place in left]):
                    place = TopicPartition(at.topic, at.partition)
                    if at.offset >= left[place]:
                        del left[place]
        finally:
            consumer.close()
        return found

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

    def close(self) -> None:
        self.kill()
        self._reader.close()


@pytest.fixture
def counts(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Counts]:
    """Without events and without a worker."""
    made = Counts(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
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

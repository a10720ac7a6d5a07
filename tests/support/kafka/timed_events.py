"""Events with times on a real Kafka, and a worker process that is killed and restarted: `TimedEvents`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.support.kafka.producing import ordered_producer

__all__ = ["BEGIN_MS", "PARTITIONS", "TimedEvents"]

PARTITIONS = 3
BEGIN_MS = int(time.time()) * 1000 - 3_600_000


class TimedEvents:
    """The topics of one test, its events, and its worker process.

    Args:
        servers: The broker.
        prefix: The beginning of the names of the topics, and the name of the app.
        directory: Where the worker keeps its state and its log.
        app: The app, as `pipeline worker` takes it. It gets the prefix as `COUNTS_PREFIX`.
        outputs: The topics that it writes, without the prefix.
        inputs: The topics that it reads, without the prefix. An event is sent to one of them.
    """

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        app: str,
        outputs: Sequence[str],
        inputs: Sequence[str] = ("events",),
    ) -> None:
        self.servers, self.prefix, self.app, self._inputs = servers, prefix, app, inputs
        self.sent: dict[int, tuple[str, int]] = {}  # key and time of each event
        self.log = directory / "worker.log"
        self.state_dir = directory / "state"
        self._random = random.Random(prefix)
        self._worker: subprocess.Popen[bytes] | None = None
        self._reader = KafkaJournalReader(KafkaSettings(servers))
        cluster = KafkaCluster(KafkaSettings(servers))
        forever = {"retention.ms": "-1"}  # Kafka would delete events with an old time every five minutes
        cluster.create(
            [TopicSpec(f"{prefix}-{name}", PARTITIONS, config=forever) for name in (*inputs, *outputs)]
        )
        cluster.close()

    def send(self, count: int) -> None:
        """Events of about 20 ms of event time each; some are out of order, and a few of them by too much."""
        producer = ordered_producer(self.servers)
        for _ in range(count):
            number = len(self.sent)
            key = f"key-{self._random.randrange(12)}"
            at_ms = BEGIN_MS + number * 20 - self._random.choice([0, 0, 0, 100, 300, 5_000])
            self.sent[number] = key, at_ms
            value = msgspec.json.encode({"n": number, "at_ms": at_ms})
            producer.produce(f"{self.prefix}-{self._random.choice(self._inputs)}", value, key)
        assert producer.flush(60) == 0

    def start(self) -> None:
        environment = {**os.environ, "COUNTS_PREFIX": self.prefix, "PIPELINE_INPUT_IDLE_S": "2"}
        command = [
            "-m",
            "pipeline",
            "worker",
            self.app,
            "--kafka",
            self.servers,
        ]
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, *command, "--state-dir", str(self.state_dir)],
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

    def close(self) -> None:
        self.kill()
        self._reader.close()

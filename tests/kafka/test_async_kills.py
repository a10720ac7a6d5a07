"""Async handlers on a real Kafka: workers that are killed while their calls are in flight."""

from __future__ import annotations

import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer

from pipeline import App, Producer
from pipeline.config import KafkaSettings, Settings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.runtime.async_sums import folded
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

RECORDS = 300  # of each input
PARTITIONS = 2
KEYS = 12
KILLED_AT = (20, 150, 400)  # requests
DEADLINE_S = 60.0


class _Ask(socketserver.StreamRequestHandler):
    """A request is answered unless the worker is killed by it."""

    server: Service

    def handle(self) -> None:
        key, topic, number = self.rfile.readline().decode().split()
        if self.server.asked(key, f"{topic} {number}"):
            self.wfile.write(b"ok\n")


class Service(socketserver.ThreadingTCPServer):
    """Counts requests by effect key, and kills the worker in the middle of some."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128  # a worker opens many connections at once; Linux drops those beyond this number

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Ask)
        self.worker: subprocess.Popen[bytes] | None = None
        self.requests = 0
        self.keys: dict[str, set[str]] = defaultdict(set)  # of each record
        self.asked_for = Counter[str]()
        self._lock = threading.Lock()
        self._left = list(KILLED_AT)

    def asked(self, key: str, record: str) -> bool:
        with self._lock:
            self.requests += 1
            self.keys[record].add(key)
            self.asked_for[record] += 1
            if self._left and self.requests >= self._left[0] and self.worker is not None:
                self._left.pop(0)
                self.worker.send_signal(signal.SIGKILL)
                return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is killed resets its connections."""


class Bench:
    """A service in this process, and worker processes that ask it."""

    def __init__(self, servers: str, name: str, directory: Path) -> None:
        self.servers, self.name, self.directory = servers, name, directory
        self.service = Service()
        threading.Thread(target=self.service.serve_forever, daemon=True).start()
        with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
            cluster.create(
                [TopicSpec(f"{name}-{topic}", PARTITIONS) for topic in ("numbers", "others", "sums")]
            )

    def send(self) -> None:
        app = App("sender")
        topics = [app.topic(f"{self.name}-{topic}", key=str, value=int) for topic in ("numbers", "others")]
        with Producer(Settings(KafkaSettings(self.servers))) as producer:
            for number in range(RECORDS):
                for topic in topics:
                    producer.send(topic, f"k{number % KEYS}", number, id=str(number))

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ASYNC_PREFIX": self.name,
            "ASYNC_PORT": str(self.service.server_address[1]),
            "PIPELINE_COMMIT_INTERVAL_MS": "20",
        }
        with (self.directory / "worker.log").open("ab") as log:
            self.service.worker = subprocess.Popen(
                [
                    sys.executable, "-m", "pipeline", "worker", "tests.support.kafka.async_sums:app",
                    "--kafka", self.servers, "--state-dir", str(self.directory / "state"),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        return self.service.worker

    def outputs(self) -> dict[int, list[tuple[str, int, int]]]:
        """(key, number, row) of the committed outputs, by partition, in order."""
        found: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
        reader = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"reader-{self.name}",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        with closing(reader):
            reader.subscribe([f"{self.name}-sums"])

            def all_read() -> bool:
                for message in reader.consume(1_000, 1.0):
                    key, value = message.key(), message.value()
                    assert key is not None
                    assert value is not None
                    number, row = msgspec.json.decode(value, type=tuple[int, int])
                    found[message.partition() or 0].append((key.decode(), number, row))
                return sum(map(len, found.values())) >= 2 * RECORDS

            wait_until(all_read, self.log, DEADLINE_S)
        return found

    def log(self) -> str:
        return (self.directory / "worker.log").read_text()

    def close(self) -> None:
        worker = self.service.worker
        if worker is not None and worker.poll() is None:
            worker.kill()
            worker.wait()
        self.service.shutdown()
        self.service.server_close()


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka.bootstrap_servers, unique_name, tmp_path)
    yield made
    made.close()


def test_kills_in_the_middle_of_calls_leave_outputs_and_rows_exact(bench: Bench) -> None:
    """Calls in flight are made again with the same effect keys, and each record counts once, in its order."""
    bench.send()
    for _ in KILLED_AT:
        assert bench.start().wait(DEADLINE_S) == -signal.SIGKILL, bench.log()
    worker = bench.start()
    outputs = bench.outputs()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(DEADLINE_S) == 0, bench.log()
    rows: dict[str, int] = {}
    counted = Counter[tuple[str, int]]()
    for key, number, row in (output for partition in outputs.values() for output in partition):
        rows[key] = folded(rows.get(key, 0), number)
        assert row == rows[key], f"{key} {number}"
        counted[key, number] += 1
    assert counted == {(f"k{number % KEYS}", number): 2 for number in range(RECORDS)}
    service = bench.service
    assert service.requests > 2 * RECORDS
    assert {len(keys) for keys in service.keys.values()} == {1}
    assert len(service.keys) == 2 * RECORDS

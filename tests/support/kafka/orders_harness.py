"""The orders example on the real broker: its topics, input, worker processes, and the comparison with a fold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from examples.orders.app import CustomerTotal, Order, Total
from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.reading import committed_records
from pipeline.ports import Record, SystemClock, TopicSpec
from tests.support.kafka.harness import DEADLINE_S, STARTS_S
from tests.support.kafka.producing import ordered_producer
from tests.support.runtime.orders import Sent, check_outputs
from tests.support.waiting import wait_until

T = TypeVar("T")

TOPICS = ("orders", "payments", "paid-orders", "customer-totals", "country-totals")
GROUPS = ("main", "customers", "countries")


class OrdersBench:
    """One app, whose names all end with `suffix`."""

    def __init__(self, servers: str, suffix: str, directory: Path, sent: Sent, partitions: int = 3) -> None:
        self.servers = servers
        self.suffix = suffix
        self.app = f"orders{suffix}"
        self.sent = sent
        self.partitions = partitions
        self._directory = directory
        self._kafka = KafkaSettings(servers)
        self._workers: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._producer = ordered_producer(servers)
        with closing(KafkaCluster(self._kafka)) as cluster:
            cluster.create([TopicSpec(self.topic(name), partitions) for name in TOPICS])

    def topic(self, name: str) -> str:
        return f"{name}{self.suffix}"

    def send(self, count: int) -> None:
        """Send orders and payments to the topics of this app."""
        for number, what in self.sent.draw(count):
            topic = "orders" if isinstance(what, Order) else "payments"
            self._producer.produce(self.topic(topic), msgspec.json.encode(what), number)
            self._producer.poll(0)
        assert self._producer.flush(DEADLINE_S) == 0

    def start(self, worker: str) -> subprocess.Popen[bytes]:
        """Start a worker process. A `worker` always has the same disk."""
        log = self._directory / f"{self.app}-{worker}-{len(self._workers)}.log"
        with log.open("ab") as file:
            child = subprocess.Popen(
                [
                    sys.executable, "-m", "pipeline", "worker", "examples.orders.app:app",
                    "--kafka", self.servers, "--worker-id", worker, "--commit-interval-ms", "50",
                    "--state-dir", str(self._directory / f"{self.app}-{worker}"),
                ],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        self._workers.append((child, log))
        return child

    def environment(self) -> dict[str, str]:
        return {**os.environ, "ORDERS_SUFFIX": self.suffix}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pipeline ...` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments, "--kafka", self.servers],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def wait_until_live(self) -> None:
        """Wait until every task of every group has a worker."""
        deadline = time.monotonic() + STARTS_S
        while True:
            done = self.command("status", self.app, "--json")
            phases = [task["phase"] for task in msgspec.json.decode(done.stdout or "{}").get("tasks", [])]
            if phases == ["live"] * self.partitions * len(GROUPS):
                return
            assert time.monotonic() < deadline, f"{done.stdout}{done.stderr}\n{self.story()}"

    def wait_until_runs_a_task(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until a task is live on this process. Before, it may not handle signals yet."""
        (log,) = [log for child, log in self._workers if child is worker]
        wait_until(lambda: '"event": "task_live"' in log.read_text(), self.story, DEADLINE_S)

    def wait_until_done(self) -> None:
        """Wait until every paid order has passed the last stage."""
        due = len(self.sent.paid())
        wait_until(lambda: len(self.values("country-totals", Total)) >= due, self.story, DEADLINE_S)

    def stop(self, *workers: subprocess.Popen[bytes]) -> None:
        """Stop a worker with SIGTERM. Its exit code must be 0."""
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(DEADLINE_S) == 0, self.story()

    def values(self, name: str, kind: type[T]) -> list[tuple[str, T]]:
        """(key, value) of each committed record, in order within each partition."""
        return [
            ((record.key() or b"").decode(), msgspec.json.decode(record.value() or b"", type=kind))
            for record in self.records(name)
        ]

    def records(self, name: str) -> Iterator[Record]:
        topic = self.topic(name)
        with (
            closing(KafkaCluster(self._kafka)) as cluster,
            closing(KafkaJournalReader(self._kafka)) as reader,
            closing(KafkaSources(self._kafka).open("pipeline.test")) as source,
        ):
            info = cluster.describe([topic])[topic]
            yield from committed_records(info, reader, source, SystemClock())

    def check(self) -> None:
        """Compare all outputs of all stages with the fold."""
        rising: dict[str, list[Total]] = defaultdict(list)
        for country, total in self.values("country-totals", Total):
            rising[country].append(total)
        paid = [order for _, order in self.values("paid-orders", Order)]
        check_outputs(self.sent, paid, [v for _, v in self.values("customer-totals", CustomerTotal)], rising)

    def story(self) -> str:
        """The end of each log."""
        return "\n".join(
            f"--- {log.name} ({child.poll()})\n" + "\n".join(log.read_text().splitlines()[-30:])
            for child, log in self._workers
        )

    def close(self) -> None:
        """End the processes that this test started."""
        for child, _ in self._workers:
            if child.poll() is None:
                child.kill()
            child.wait()

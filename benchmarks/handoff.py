"""How long a task stands still when it moves to another worker, in seconds, while orders keep coming.

Two partitions, a table of 1.5 million keys in each. Worker `stays` runs both; `comes` joins and gets one of them, by a
planned handoff; then `comes` is stopped by SIGTERM, and the task goes back. In the second half of the rounds, it is
killed by SIGKILL and does not return: its peer sees the end of its process, and `stays` takes over.

A pause is the time between the last answer of the moving partition before the move and its first answer after it, as a
reader of committed records sees them. Orders come every `PERIOD_S`, so that is also the least pause there can be.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec
from confluent_kafka import Producer
from rich.console import Console

from pipeline import KafkaSettings
from pipeline.core.names import GroupId, TopicPartition
from pipeline.core.records import partition_of
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.source import KafkaSources
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["KEYS", "TAKE_OVER_BOUND_S", "run"]

KEYS = 1_500_000
TAKE_OVER_BOUND_S = 3.0
PARTITIONS = 2
PERIOD_S = 0.02
DEADLINE_S = 300.0
NAME = "handoff"


class _Orders:
    """Sends orders to both partitions for as long as it is open, and notes when each partition answers."""

    def __init__(self, servers: str, keys: list[bytes]) -> None:
        self._keys = keys
        self._stop = threading.Event()
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "logger": LOGGER})
        self._source = KafkaSources(KafkaSettings(servers, {"fetch.wait.max.ms": "10"})).open(
            f"{NAME}-reader"
        )
        self._source.assign({TopicPartition(f"{NAME}-receipts", number): 0 for number in range(PARTITIONS)})
        self.answers: dict[int, list[float]] = defaultdict(list)
        self._threads = [threading.Thread(target=work) for work in (self._send, self._read)]

    def __enter__(self) -> _Orders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._source.close()

    def pause(self, partition: int, since_s: float) -> float:
        """The longest time without an answer since then. A killed worker gives no more answers."""
        times = [since_s, *(at for at in self.answers[partition] if at >= since_s)]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def _send(self) -> None:
        number = 0
        while not self._stop.wait(PERIOD_S):
            for partition, key in enumerate(self._keys):
                order = msgspec.json.encode({"number": number, "cents": 1})
                self._producer.produce(f"{NAME}-orders", order, key, partition=partition)
                number += 1
            self._producer.poll(0)
        self._producer.flush(10)

    def _read(self) -> None:
        while not self._stop.is_set():
            records = self._source.poll(1_000, 0.01).records
            now = time.monotonic()
            for partition in {record.partition() for record in records}:
                self.answers[partition].append(now)


class _Worker:
    """A process, and what its log says."""

    def __init__(self, servers: str, directory: Path, worker_id: str) -> None:
        self._log = directory / f"{worker_id}.log"
        self._lived = self._count()
        with self._log.open("ab") as log:
            state = str(directory / worker_id)
            command = [sys.executable, "-m", "benchmarks.handoff_worker", NAME, servers, state, worker_id]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_live(self, tasks: int) -> int:
        """Until so many tasks have gone live since the last time it was asked; the partition of the last one."""
        deadline = time.monotonic() + DEADLINE_S
        while self._count() < self._lived + tasks:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"benchmark broken: {self._log.read_text()[-2_000:]}")
            time.sleep(0.01)
        self._lived += tasks
        last = [line for line in self._log.read_text().splitlines() if '"task_live"' in line][-1]
        return int(msgspec.json.decode(last)["task"])

    def _count(self) -> int:
        return self._log.read_text().count('"task_live"') if self._log.exists() else 0


def run(rounds: int, keys: int = KEYS) -> int:
    """Measure and print; 0 when the bound on a take-over holds, else 1."""
    console = Console(highlight=False)
    planned: list[float] = []
    ended: dict[signal.Signals, list[float]] = {signal.SIGTERM: [], signal.SIGKILL: []}
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
    ):
        directory, servers = Path(workspace), kafka.bootstrap_servers
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create(
            [TopicSpec(f"{NAME}-{what}", PARTITIONS) for what in ("customers", "orders", "receipts")]
        )
        console.print(f"handoff: {PARTITIONS} tasks of {keys:,} keys each, {rounds} rounds")
        stays = _Worker(servers, directory, "stays")
        comes: _Worker | None = None
        try:
            stays.wait_live(PARTITIONS)
            known = _load(servers, cluster, keys * PARTITIONS)
            with _Orders(servers, known) as orders:
                for number in range(2 * rounds):
                    how = signal.SIGTERM if number < rounds else signal.SIGKILL
                    began = time.monotonic()
                    comes = _Worker(servers, directory, "comes")
                    partition = comes.wait_live(1)
                    time.sleep(1.5)
                    planned.append(orders.pause(partition, began))
                    began = time.monotonic()
                    comes.process.send_signal(how)
                    comes.process.wait(60)
                    stays.wait_live(1)
                    time.sleep(1.5)
                    ended[how].append(orders.pause(partition, began))
        finally:
            for worker in (stays, comes):
                if worker is not None:
                    worker.process.kill()
                    worker.process.wait()
            cluster.close()
    for what, found in (
        ("planned handoff", planned),
        ("clean stop of its worker", ended[signal.SIGTERM]),
        ("SIGKILL of its worker, which does not return", ended[signal.SIGKILL]),
    ):
        console.print(
            f"{what}, {keys:,} keys: the task pauses {median(found):.2f} s (worst {max(found):.2f}, of {len(found)})"
        )
    return int(median(ended[signal.SIGKILL]) > TAKE_OVER_BOUND_S)


def _load(servers: str, cluster: KafkaCluster, keys: int) -> list[bytes]:
    """Fill the tables, wait until all is committed; a key of each partition."""
    producer = Producer(
        {"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 20, "logger": LOGGER}
    )
    known: dict[int, bytes] = {}
    for number in range(keys):
        key = b"customer-%d" % number
        if len(known) < PARTITIONS:
            known.setdefault(partition_of(key, PARTITIONS), key)
        while True:
            try:
                producer.produce(
                    f"{NAME}-customers", b'{"name":"%016x"}' % (number * 0x9E3779B97F4A7C15 % 2**64), key
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = cluster.committed(GroupId(NAME, "main").consumer_group)
        if sum(at for place, at in found.items() if place.topic == f"{NAME}-customers") >= keys:
            return [known[partition] for partition in range(PARTITIONS)]
        if time.monotonic() > deadline:
            raise SystemExit("benchmark broken: the tables were not filled")
        time.sleep(0.2)

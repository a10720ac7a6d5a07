"""Seconds from the start of a killed worker's process to its first new commit, for tables of different sizes.

For each size a worker fills a table from a topic, in a process of its own. Then, for each kill:

    1 rows are written again, as many for each size, so that RocksDB has a log to replay;
    2 a trickle of orders, one a partition at a time, is answered;
    3 every task holds a commit that is delivered and not yet asked for, the worst moment: SIGKILL;
    4 new orders arrive;
    5 the worker is started again, on the same disk (whose pages the system still has in memory).

The clock runs from 5, the spawn, to the first answer that a reader of committed records gets and had not got
before. It is divided by who worked: *Kafka's part* is the time inside calls of the client that wait for a broker,
and the way of the answer to the reader; *our part* is all the rest, also the time in which one task waits because
another one's RocksDB is being opened (`benchmarks.timeline`). Of Kafka's part about 0.5 s is `init_transactions`
over the transactions that the kill left open: the client asks again after that time.

The bound is on our part: the median over the kills is at most BOUND_S for each size. It means a quiet machine; the
CPU time of the process until all tasks have committed is printed beside it, and does not wait for others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.restart_app import HOLD, PARTITIONS, STATE, TIMELINE, held
from benchmarks.timeline import STAGES, Part, parts, read_record
from pipeline import KafkaSettings
from pipeline.core.names import GroupId, TopicPartition
from pipeline.core.records import partition_of
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.source import KafkaSources
from pipeline.ports import Source, TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["BOUND_S", "SIZES", "run"]

SIZES = (10_000, 1_000_000, 5_000_000)
BOUND_S = 1.0
REWRITTEN_ROWS = 200_000
TRICKLE = 10
DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Restart:
    """One kill and what followed. `all_tasks_s` and `cpu_s`: until every task had committed something new."""

    total_s: float
    all_tasks_s: float
    cpu_s: float
    parts: Mapping[str, Part]

    @property
    def ours_s(self) -> float:
        return sum(part.ours_s for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class Measured:
    """One size."""

    keys: int
    load_s: float
    state_mb: float
    restarts: Sequence[Restart]

    def median(self, seconds: Callable[[Restart], float]) -> float:
        return median(map(seconds, self.restarts))


def run(sizes: Sequence[int], kills: int) -> int:
    """Measure and print; 0 when the bound holds for each size, else 1."""
    console = Console(highlight=False)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
    ):
        for keys in sizes:
            console.print(f"restart: a table of {keys:,} keys, {kills} kills")
            directory = Path(workspace) / str(keys)
            directory.mkdir()
            found.append(_measure(kafka.bootstrap_servers, directory, keys, kills))
    console.print(_table(found))
    for measured in found:
        console.print(_line(measured), soft_wrap=True)
    return int(any(measured.median(lambda one: one.ours_s) > BOUND_S for measured in found))


def _table(found: Sequence[Measured]) -> Table:
    table = Table("ms, median: ours + Kafka's", box=None)
    for measured in found:
        table.add_column(f"{measured.keys:,} keys", justify="right")
    for stage in STAGES:
        cells = []
        for measured in found:
            ours_s = median(one.parts[stage].ours_s for one in measured.restarts)
            kafka_s = median(one.parts[stage].kafka_s for one in measured.restarts)
            cells.append(f"{ours_s * 1000:,.0f} + {kafka_s * 1000:,.0f}")
        table.add_row(stage, *cells)
    return table


def _line(measured: Measured) -> str:
    total_s = measured.median(lambda one: one.total_s)
    ours_s = measured.median(lambda one: one.ours_s)
    worst_s = max(one.ours_s for one in measured.restarts)
    kafka_s = measured.median(lambda one: one.total_s - one.ours_s)
    all_s = measured.median(lambda one: one.all_tasks_s)
    cpu_s = measured.median(lambda one: one.cpu_s)
    verdict = "within" if ours_s <= BOUND_S else "ABOVE"
    return (
        f"restart, {measured.keys:,} keys ({measured.state_mb:,.0f} MB on disk, loaded in {measured.load_s:,.0f} s): "
        f"first new commit after {total_s:.2f} s, of all {PARTITIONS} tasks after {all_s:.2f} s; Kafka's part "
        f"{kafka_s:.2f} s, ours {ours_s:.2f} s (worst {worst_s:.2f}; CPU {cpu_s:.2f}), {verdict} {BOUND_S:.0f} s "
        f"(median of {len(measured.restarts)})"
    )


def _measure(servers: str, directory: Path, keys: int, kills: int) -> Measured:
    """One size, with topics and processes of its own."""
    name = f"restart-{keys}"
    cluster = KafkaCluster(KafkaSettings(servers))
    topics = [f"{name}-{what}" for what in ("customers", "orders", "receipts")]
    cluster.create([TopicSpec(topic, PARTITIONS) for topic in topics])
    # How long a reader's request may rest at the broker is no part of a restart.
    reader = KafkaSources(KafkaSettings(servers, {"fetch.wait.max.ms": "10"})).open(f"{name}-reader")
    reader.assign({TopicPartition(f"{name}-receipts", partition): 0 for partition in range(PARTITIONS)})
    bench = _Bench(name, servers, directory, keys, cluster, reader)
    try:
        return bench.measure(kills)
    finally:
        bench.kill()
        reader.close()
        cluster.close()


@dataclass
class _Bench:
    name: str
    servers: str
    directory: Path
    keys: int
    cluster: KafkaCluster
    reader: Source
    worker: subprocess.Popen[bytes] | None = None
    ordered: int = 0
    answered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "compression.type": "lz4",
                "logger": LOGGER,  # it may still live when Kafka has ended
            }
        )

    def measure(self, kills: int) -> Measured:
        """Fill the table, kill and restart."""
        began_s = time.monotonic()
        self.start()
        self._write(self.keys)
        load_s = time.monotonic() - began_s
        restarts = []
        for _ in range(kills):
            self._write(REWRITTEN_ROWS)  # 1
            for _ in range(TRICKLE):  # 2
                self._order()
                self._read_until(lambda: len(self.answered) == self.ordered)
            self._hold()  # 3
            self.kill()
            (self.directory / TIMELINE).unlink()
            known = set(self.answered)
            self._order()  # 4
            spawned_s = self.start()  # 5
            restarts.append(self._follow(spawned_s, known))
        return Measured(self.keys, load_s, self._state_mb(), restarts)

    def start(self) -> float:
        """Start the worker; when."""
        command = [sys.executable, "-m", "benchmarks.restart_worker"]
        with (self.directory / "worker.log").open("ab") as log:
            spawned_s = time.monotonic()
            self.worker = subprocess.Popen(
                [*command, self.name, self.servers, str(self.directory)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return spawned_s

    def _environment(self) -> dict[str, str]:
        """In which the first start compiles what it imports, as an installation does; a restart never has to."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "PYTHONPYCACHEPREFIX": str(self.directory / "compiled")}

    def kill(self) -> None:
        """SIGKILL, and the end of the process."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
            self.worker = None

    def _follow(self, spawned_s: float, known: set[int]) -> Restart:
        """Read what the new process commits, until each task has committed something."""
        seen_s: dict[int, float] = {}

        def read() -> bool:
            for partition, number in self._read():
                if number not in known:
                    seen_s.setdefault(partition, time.monotonic())
            return len(self.answered) == self.ordered and (self.directory / TIMELINE).exists()

        self._wait(read, "the answers after a restart")
        partition, first_s = min(seen_s.items(), key=lambda item: item[1])
        record = read_record(self.directory / TIMELINE)
        return Restart(
            total_s=first_s - spawned_s,
            all_tasks_s=max(seen_s.values()) - spawned_s,
            cpu_s=record.cpu_s,
            parts=parts(record.events, partition, spawned_s, first_s),
        )

    def _write(self, rows: int) -> None:
        """Rows of customers, spread over the keys, until the worker has committed them all."""
        for number in range(rows):
            key = b"customer-%d" % (number * 7919 % self.keys)
            name = number * 0x9E3779B97F4A7C15 % 2**64  # as short as a name, and compressed as badly
            self._produce("customers", key, b'{"name":"%016x"}' % name)
        self._producer.flush()
        partitions = [TopicPartition(f"{self.name}-customers", partition) for partition in range(PARTITIONS)]
        ends = {partition: self.reader.bounds(partition)[1] for partition in partitions}
        group = GroupId(self.name, "main").consumer_group

        def done() -> bool:
            positions = self.cluster.committed(group)
            return all(positions.get(partition, 0) >= end for partition, end in ends.items())

        self._wait(done, "the rows")

    def _order(self) -> None:
        """One order in each partition, for a key that the table has."""
        for partition in range(PARTITIONS):
            number = self.ordered
            keys = (b"customer-%d" % ((number * 31 + step) % self.keys) for step in range(self.keys))
            key = next(key for key in keys if partition_of(key, PARTITIONS) == partition)
            self._produce("orders", key, msgspec.json.encode({"number": number, "cents": 100}))
            self.ordered += 1
        self._producer.flush()

    def _produce(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(f"{self.name}-{topic}", value, key)
                break
            except BufferError:
                self._producer.poll(0.1)

    def _hold(self) -> None:
        """Return when every task has an open transaction."""
        files = [held(self.directory, partition) for partition in range(PARTITIONS)]
        (self.directory / HOLD).touch()
        self._order()
        self._wait(lambda: all(file.exists() for file in files), "held commits")
        for file in [*files, self.directory / HOLD]:
            file.unlink()

    def _read_until(self, condition: Callable[[], bool]) -> None:
        def read() -> bool:
            self._read()
            return condition()

        self._wait(read, "answers")

    def _read(self) -> list[tuple[int, int]]:
        """(partition, number) of new answers. Raises BenchmarkError when one comes twice."""
        found = []
        for record in self.reader.poll(1_000, 0.01).records:
            number = int(msgspec.json.decode(record.value())["number"])
            if number in self.answered:
                raise BenchmarkError(f"order {number} was answered twice")
            self.answered.add(number)
            found.append((record.partition(), number))
        return found

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if self.worker is not None and self.worker.poll() is not None:
                raise BenchmarkError(f"the worker ended: {self._log()}")
            if time.monotonic() >= deadline:
                raise BenchmarkError(f"{what} did not come in {DEADLINE_S:.0f} s: {self._log()}")
            time.sleep(0.002)

    def _log(self) -> str:
        return (self.directory / "worker.log").read_text(encoding="utf-8", errors="replace")[-2_000:]

    def _state_mb(self) -> float:
        files = (self.directory / STATE).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file()) / 1e6

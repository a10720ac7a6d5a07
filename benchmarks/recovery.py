"""Predicted and measured seconds of recovery: of a killed worker, a lost disk and a planned handoff.

For each size, worker `b` has all tasks and a state of that size. Orders keep coming. In each round, the drills of
`pipeline drill` run, with their own predictions and measurements:

    kill        `b` is killed and does not return in time: worker `a` takes over all tasks, on an empty disk
    lost disk   `b`, the only worker, is killed and loses its disk; it starts again and restores all tasks
    handoff     `c` joins and gets half of the tasks, which are processed by `b` until `c` has copied their states

The clock runs from the fault, or the start of `c`, until the last affected task commits on its new owner. A prediction
uses the sizes of checkpoints and journals, and what the workers have measured of their own restores. Before the first
round nothing was measured, and the defaults are several times too high here. So a round that is shown, but not counted,
comes first. The bound is on the median of the ratios of measured to predicted seconds: at most BOUND, and at least
1 / BOUND.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median

import msgspec
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.restart_app import PARTITIONS
from pipeline import KafkaSettings, PipelineError, Settings, WorkerSettings
from pipeline.config import DrillSettings
from pipeline.core.records import partition_of
from pipeline.drills.catalog import find_drill
from pipeline.drills.runner import Runner
from pipeline.drills.scene import Options
from pipeline.drills.workers import holder_of
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.object_store.checkpoint_store import open_checkpoint_store
from pipeline.ports import Deadline, SystemClock, TopicSpec
from pipeline.runtime.status import AppStatus, read_status
from pipeline.testing import LocalKafka

__all__ = ["BOUND", "SIZES_MB", "run"]

SIZES_MB = (100, 1000)
ROUNDS = 5
BOUND = 1.5
ROW_BYTES = 1_000
PERIOD_S = 0.05  # between two orders of a partition
DEADLINE_S = 600.0
# `b` and `c` have so large a weight that no task is left for the workers before them.
WEIGHTS = {"a": 1, "b": 100}
# The workers beside `b`. Without one, the restart ends the pause of the tasks of a killed worker.
OTHERS: dict[str, Sequence[str]] = {"kill": ["a"], "lost disk": [], "handoff": []}
FAULTS = {"kill": ("kill-worker", "b"), "lost disk": ("lose-disk", "b"), "handoff": ("scale-out", "b")}


@dataclass
class Measured:
    """One fault at one size: the seconds of each round."""

    fault: str
    size_mb: int
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return median(found / told for found, told in zip(self.measured, self.predicted, strict=True))


def run(sizes_mb: Sequence[int], rounds: int) -> int:
    """Measure and print; 0 when the bound holds for each fault and size, else 1."""
    console = Console(highlight=False, soft_wrap=True)
    found: list[Measured] = []
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
    ):
        for size_mb in sizes_mb:
            directory = Path(workspace) / str(size_mb)
            directory.mkdir()
            with closing(_Bench(kafka.bootstrap_servers, directory, size_mb, console)) as bench:
                found += bench.measure(rounds)
    table = Table("fault", "state, MB", "predicted, s", "measured, s", "ratio", "each round", box=None)
    for each in found:
        pairs = zip(each.predicted, each.measured, strict=True)
        table.add_row(
            each.fault,
            str(each.size_mb),
            f"{median(each.predicted):.1f}",
            f"{median(each.measured):.1f}",
            f"{each.ratio:.2f}",
            "  ".join(f"{told:.1f}/{took:.1f}" for told, took in pairs),
        )
    console.print(table)
    outside = [each for each in found if not 1 / BOUND <= each.ratio <= BOUND]
    for each in outside:
        console.print(
            f"{each.fault}, {each.size_mb} MB: the median ratio is {each.ratio:.2f}, outside of {BOUND:g}"
        )
    return int(bool(outside))


class _Bench:
    """One size, with topics, workers and a checkpoint store of its own."""

    def __init__(self, servers: str, directory: Path, size_mb: int, console: Console) -> None:
        self._servers = servers
        self._directory = directory
        self._size_mb = size_mb
        self._console = console
        self._name = f"recovery-{size_mb}"
        self._store = directory / "checkpoints"
        self._store.mkdir()
        self._cluster = KafkaCluster(KafkaSettings(servers))
        self._reader = KafkaJournalReader(KafkaSettings(servers))
        self._clock = SystemClock()

    def close(self) -> None:
        """End all workers, also those that drills have started."""
        for place in self._directory.glob(f"*/{self._name}"):
            self._end(place)
        for place in self._directory.glob(f"drills/*/{self._name}"):
            self._end(place)
        self._reader.close()
        self._cluster.close()

    def measure(self, rounds: int) -> list[Measured]:
        """Load the state, and run each drill in each round."""
        topics = [f"{self._name}-{what}" for what in ("customers", "orders", "receipts")]
        self._cluster.create([TopicSpec(topic, PARTITIONS) for topic in topics])
        began_s = time.monotonic()
        self._start("b")
        keys = self._load()
        self._wait(self._is_loaded, "all rows")  # an order needs its row
        found = {fault: Measured(fault, self._size_mb) for fault in FAULTS}
        with self._orders(keys):
            self._wait(self._is_covered, "checkpoints of the whole state")
            size = sum(status.checkpoint_bytes for status in self._status().tasks)
            seconds = time.monotonic() - began_s
            self._console.print(
                f"recovery: {PARTITIONS} tasks, {size / 1e6:,.0f} MB of state, loaded in {seconds:.0f} s; "
                f"{rounds} rounds"
            )
            for counted in (False, *(True,) * rounds):
                for fault, measured in found.items():
                    others = OTHERS[fault]
                    is_ready = partial(self._is_ready, others)
                    for worker in others:
                        self._start(worker)
                    self._wait(is_ready, f"all tasks on worker b before {fault}")
                    self._drill(measured, counted=counted)
                    self._wait(is_ready, f"all tasks on worker b after {fault}")
                    for worker in others:
                        self._remove(worker)
        return list(found.values())

    def _drill(self, measured: Measured, *, counted: bool) -> None:
        name, worker = FAULTS[measured.fault]
        store = open_checkpoint_store(self._store.as_uri())
        settings = Settings(
            KafkaSettings(self._servers),
            WorkerSettings(checkpoint_store=self._store.as_uri()),
            drills=DrillSettings(
                (self._name,),
                self._directory / "drills",
                steady_s=1.0,
                rto_s=DEADLINE_S,
                timeout_s=DEADLINE_S,
            ),
        )
        runner = Runner(self._name, settings, self._cluster, self._reader, store, self._clock, lambda _: None)
        report = runner.run(find_drill(name), Options(worker=worker), lambda _: None)
        took_s = report.recovery.measured_s
        if took_s is None or report.recovery_point.effects:
            raise BenchmarkError(f"{name}: {report.verdict}: {'; '.join(report.deviations)}")
        told_s = report.recovery.predicted_s
        if counted:
            measured.predicted.append(told_s)
            measured.measured.append(took_s)
        note = "" if counted else " (with defaults; not counted)"
        self._console.print(f"  {measured.fault}: predicted {told_s:.1f} s, measured {took_s:.1f} s{note}")

    def _start(self, worker: str) -> None:
        """A worker process as an operator starts it, with one checkpoint of each task every 20 s."""
        options = {
            "--kafka": self._servers,
            "--worker-id": worker,
            "--state-dir": str(self._directory / worker),
            "--weight": str(WEIGHTS[worker]),
            "--topics-dir": "",
        }
        root = Path(__file__).resolve().parents[1]
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "RECOVERY_APP": self._name,
            "PIPELINE_CHECKPOINT_STORE": self._store.as_uri(),
            "PIPELINE_CHECKPOINT_INTERVAL_S": "20",
        }
        command = [sys.executable, "-m", "pipeline", "worker", "benchmarks.recovery_app:app"]
        with (self._directory / f"{worker}.log").open("ab") as log:
            subprocess.Popen(
                [*command, *(word for option in options.items() for word in option)],
                env=environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _remove(self, worker: str) -> None:
        """Stop a worker, and empty its disk: it has kept the states of tasks that it ran.

        It leaves the members' group first. A killed worker stays in it for its session. A join in that time makes the
        coordinator wait for it, and the session of the worker that the drill kills begins only after this wait.
        """
        self._end(self._directory / worker / self._name, signal.SIGTERM)
        shutil.rmtree(self._directory / worker, ignore_errors=True)

    def _end(self, place: Path, by: signal.Signals = signal.SIGKILL) -> None:
        process = holder_of(place)
        if process is not None:
            process.send(by)
            self._wait(lambda: not process.alive, f"the end of process {process.pid}")

    def _load(self) -> list[bytes]:
        """Write the rows, and return a key of each partition."""
        random = Random(1)  # noqa: S311 - rows that cannot be compressed to nothing
        producer = self._producer(20)
        keys: dict[int, bytes] = {}
        for number in range(self._size_mb * 1_000_000 // (ROW_BYTES + 30)):
            key = b"customer-%d" % number
            keys.setdefault(partition_of(key, PARTITIONS), key)
            row = f'{{"name":"{random.randbytes(ROW_BYTES // 2).hex()}"}}'
            while True:
                try:
                    producer.produce(f"{self._name}-customers", row, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush()
        return list(keys.values())

    def _producer(self, linger_ms: int) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._servers,
                "partitioner": "murmur2_random",
                "linger.ms": linger_ms,
                "compression.type": "lz4",
                "logger": LOGGER,
            }
        )

    @contextmanager
    def _orders(self, keys: Sequence[bytes]) -> Iterator[None]:
        """Send an order to each partition again and again: a task that has input commits."""
        stop, producer = threading.Event(), self._producer(0)

        def send() -> None:
            number = 0
            while not stop.wait(PERIOD_S):
                for key in keys:
                    order = msgspec.json.encode({"number": number, "cents": 1})
                    producer.produce(f"{self._name}-orders", order, key)
                    number += 1
                producer.poll(0)
            producer.flush(10)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _status(self) -> AppStatus:
        return read_status(self._name, self._cluster, self._reader, self._clock.wall_ms())

    def _is_loaded(self) -> bool:
        tasks = self._status().tasks
        return len(tasks) == PARTITIONS and all(task.positions and not task.lag for task in tasks)

    def _is_covered(self) -> bool:
        """Whether nearly all of the state is in checkpoints."""
        return all(
            task.checkpoint_bytes and task.journal_bytes < task.checkpoint_bytes / 20
            for task in self._status().tasks
        )

    def _is_ready(self, others: Sequence[str]) -> bool:
        """Whether worker b runs all tasks, and it and the others watch each other; no peer watches a lone worker."""
        status = self._status()
        watched = {each.worker: each.watched for each in status.workers}
        if watched.keys() != {"b", *others} or (others and not all(watched.values())):
            return False
        return all(
            task.worker == "b" and task.phase == "live" and task.lag < PARTITIONS * 100
            for task in status.tasks
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = Deadline(self._clock, DEADLINE_S, 0.5)
        while True:
            with suppress(PipelineError):  # the app does not exist before its first worker has started
                if condition():
                    return
            if not deadline.pause():
                logs = "".join(
                    path.read_text(errors="replace")[-1_500:] for path in self._directory.glob("*.log")
                )
                raise BenchmarkError(f"{what} did not come in {DEADLINE_S:.0f} s: {logs}")

"""What a worker with many partitions needs: the time until all tasks are live, and its cost while it is idle.

Run by `python -m benchmarks partitions --partitions 1000`.

The input has a record in each partition. For each start, on one Kafka:

    1 spawn `pipeline worker`, with a limit on open files if one is given;
    2 wait until every task is live: the first start writes the genesis, each further one restores;
    3 once the worker has been idle for SETTLE_S, read its threads, descriptors and memory, and its CPU time over
      IDLE_S;
    4 SIGTERM, and the exit code must be 0.

The seconds of 2 include the start of Python. The highest number of descriptors is looked up every LOOK_S from 1 on.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks import NOT_DECLARED, BenchmarkError
from benchmarks.partitions_app import INPUT, NAME
from pipeline import KafkaSettings
from pipeline.core.inputs import default_tasks
from pipeline.errors import UnreachableError
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.processes.system import process_stat
from pipeline.testing import LocalKafka

__all__ = ["prepare", "run"]

SETTLE_S = 5.0
IDLE_S = 10.0
LOOK_S = 0.02
DEADLINE_S = 300.0
_CPU_TICKS = slice(11, 13)  # the fields of `process_stat` with the time in user and in kernel mode


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a worker, and its cost when all tasks are live."""

    live_s: float
    stop_s: float
    threads: int
    descriptors: int
    most_descriptors: int
    rss_mb: float
    idle_cpu: float


def run(partitions: int, tasks: int | None, rounds: int, files: int | None) -> int:
    """Measure and print; 0 unless a start fails. `files`: the soft and hard limit on open files."""
    console = Console(highlight=False)
    count = tasks or default_tasks(partitions)
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
    ):
        prepare(kafka.bootstrap_servers, partitions)
        starts = [
            _Start(kafka.bootstrap_servers, Path(workspace), count, tasks, files).measure()
            for _ in range(1 + rounds)
        ]
    console.print(_table(starts))
    console.print(_line(partitions, count, starts), soft_wrap=True)
    return 0


def prepare(servers: str, partitions: int) -> None:
    """Create the input, with a record in each partition. Returns when the broker serves all of them, and groups."""
    with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
        cluster.create([TopicSpec(INPUT, partitions)])
        producer = Producer({"bootstrap.servers": servers, "logger": LOGGER})
        for partition in range(partitions):
            producer.produce(INPUT, b"1", b"key-%d" % partition, partition)
        producer.flush()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                cluster.committed("ready")  # the first request for any group creates the topic of all groups
            except UnreachableError:
                if time.monotonic() >= deadline:
                    raise
            else:
                return


def _table(starts: list[Start]) -> Table:
    table = Table(
        "start", "live s", "stop s", "threads", "descriptors", "most", "MB", "idle % of a core", box=None
    )
    for number, start in enumerate(starts):
        table.add_row(
            "genesis" if not number else str(number),
            f"{start.live_s:.1f}",
            f"{start.stop_s:.1f}",
            str(start.threads),
            str(start.descriptors),
            str(start.most_descriptors),
            f"{start.rss_mb:.0f}",
            f"{100 * start.idle_cpu:.1f}",
        )
    return table


def _line(partitions: int, tasks: int, starts: list[Start]) -> str:
    first, later = starts[0], starts[1:] or starts

    def middle(figure: Callable[[Start], float]) -> float:
        return median(map(figure, later))

    return (
        f"partitions: {partitions:,} in {tasks} tasks: all live after {first.live_s:.1f} s at the first start and "
        f"{middle(lambda one: one.live_s):.1f} s later; {middle(lambda one: one.threads):.0f} threads, "
        f"{middle(lambda one: one.descriptors):.0f} descriptors (at most "
        f"{max(one.most_descriptors for one in starts)}), {middle(lambda one: one.rss_mb):.0f} MB, "
        f"{100 * middle(lambda one: one.idle_cpu):.1f} % of a core when idle (median of {len(later)})"
    )


@dataclass
class _Start:
    servers: str
    directory: Path
    count: int
    tasks: int | None
    files: int | None

    def measure(self) -> Start:
        """Steps 1 to 4."""
        self.log = self.directory / "worker.log"
        self.log.unlink(missing_ok=True)
        self.most = 0
        began_s = time.monotonic()
        self.worker = self._spawn()  # 1
        try:
            self._wait(lambda: self.log.read_text(encoding="utf-8").count('"task_live"') >= self.count)  # 2
            live_s = time.monotonic() - began_s
            self._pause(SETTLE_S)  # 3
            began_cpu_s = self._cpu_s()
            self._pause(IDLE_S)
            idle_cpu = (self._cpu_s() - began_cpu_s) / IDLE_S
            status = self._status()
            descriptors = self._descriptors()
            began_s = time.monotonic()
            self.worker.terminate()  # 4
            code = self.worker.wait(DEADLINE_S)
        finally:
            self.worker.kill()
            self.worker.wait()
        if code:
            raise BenchmarkError(f"the worker ended with {code}: {self._story()}")
        return Start(
            live_s,
            time.monotonic() - began_s,
            status["Threads"],
            descriptors,
            self.most,
            status["VmRSS"] / 1000,
            idle_cpu,
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **({"WIDE_TASKS": str(self.tasks)} if self.tasks is not None else {})}
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [
                    sys.executable, "-m", "pipeline", "worker", "benchmarks.partitions_app:app",
                    "--kafka", self.servers, "--state-dir", str(self.directory / "state"), "--worker-id", "bench",
                    "--topics-dir", NOT_DECLARED,
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        if self.files is not None:  # Python has not read its program yet
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (self.files, self.files))
        return worker

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if self.worker.poll() is not None:
                raise BenchmarkError(f"the worker ended: {self._story()}")
            if time.monotonic() >= deadline:
                raise BenchmarkError(
                    f"not all tasks of {NAME} were live in {DEADLINE_S:.0f} s: {self._story()}"
                )
            self.most = max(self.most, self._descriptors())
            time.sleep(LOOK_S)

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= until_s)

    def _descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.worker.pid}/fd").iterdir())

    def _status(self) -> dict[str, int]:
        """Numbers in `/proc/PID/status`."""
        lines = Path(f"/proc/{self.worker.pid}/status").read_text(encoding="ascii").splitlines()
        pairs = (line.split()[:2] for line in lines)
        return {pair[0].rstrip(":"): int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

    def _cpu_s(self) -> float:
        ticks = process_stat(self.worker.pid)[_CPU_TICKS]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _story(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]

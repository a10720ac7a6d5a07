"""Time from sending an event to reading its committed output, at a steady rate, with the default settings.

Each turn runs the worker and, in processes of the same machine, the raw transactional loop (consume, produce, commit
with the offsets), and, if one is named, the worker of another checkout. They alternate, and the ratios are taken per
turn, so that a drifting machine cancels out. The first fifth of a run is not counted. CPU is that of the process for
the whole rate, start excluded; `broker` is that of Kafka in the same time.

A rate of 0 measures an idle worker: CPU only. A case with a number of tasks measures a group with fewer tasks than
partitions.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from pipeline import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from pipeline.processes.system import process_stat
from pipeline.testing import LocalKafka

__all__ = ["CASES", "case_of", "run"]

# records a second, partitions, tasks; 0: the default
CASES = ((10_000, 4, 0), (1_000, 4, 0), (100, 4, 0), (10_000, 64, 0), (0, 4, 0))
SECONDS = 10.0
START_S = 120.0
_PROCESS = Path(__file__).with_name("latency_process.py")
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Latencies in ms; CPU in percent of a core."""

    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    worst: float = 0.0
    cpu: float = 0.0
    broker: float = 0.0


def case_of(text: str) -> tuple[int, int, int]:
    """`RATE:PARTITIONS` or `RATE:PARTITIONS:TASKS`, an argument of the command. Raises ValueError."""
    rate, partitions, *tasks = map(int, text.split(":"))
    (number,) = tasks or (0,)
    return rate, partitions, number


def run(
    cases: Sequence[tuple[int, int, int]], rounds: int, against: Path | None, seconds: float | None = None
) -> int:
    """Measure and print; 0."""
    console = Console(highlight=False, width=110)
    variants = {"pipeline": _ROOT, "raw": _ROOT}
    if against is not None:
        variants["other"] = against.resolve()
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        for rate, partitions, tasks in cases:
            found: dict[str, list[Measured]] = {name: [] for name in variants}
            for turn in range(rounds):
                order = list(variants)[turn % len(variants) :] + list(variants)[: turn % len(variants)]
                for name in order:
                    place = f"{rate}-{partitions}-{tasks}-{turn}-{name}"
                    topics = [TopicSpec(f"in-{place}", partitions), TopicSpec(f"out-{place}", partitions)]
                    cluster.create(topics)
                    at = _Place(kafka, Path(workspace), place, partitions, tasks, variants[name])
                    found[name].append(
                        _measure(at, "raw" if name == "raw" else "pipeline", rate, seconds or SECONDS)
                    )
                    cluster.delete([topic.name for topic in topics])
            _show(console, found, rate, f"{partitions} partitions" + (f", {tasks} tasks" if tasks else ""))
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a variant runs. `root`: the checkout with the package."""

    kafka: LocalKafka
    directory: Path
    name: str
    partitions: int
    tasks: int
    root: Path


def _measure(at: _Place, role: str, rate: int, seconds: float) -> Measured:
    source, target, servers = f"in-{at.name}", f"out-{at.name}", at.kafka.bootstrap_servers
    warm_up = 100
    broker = at.kafka.status().nodes[0].pid
    with (
        _started(
            at, role, servers, source, target, str(at.partitions), str(at.directory), str(at.tasks)
        ) as worker,
        _started(
            at, "read", servers, target, str(at.partitions), str(int(rate * seconds) + warm_up)
        ) as reader,
    ):
        with _started(at, "feed", servers, source, str(warm_up), "1") as feeder:
            feeder.wait(START_S)
        if _line(reader) != "ready":
            raise BenchmarkError(f"{at.name}: no output")
        time.sleep(3.0)  # the worker has the other tasks, too
        began_s, began = time.monotonic(), [_cpu_s(worker.pid), _cpu_s(broker)]
        if rate:
            with _started(at, "feed", servers, source, str(rate), str(seconds)) as feeder:
                feeder.wait(START_S + seconds)
            took_s = time.monotonic() - began_s
            count, *latencies = _line(reader).split()
            if int(count) != int(rate * seconds) + warm_up:
                raise BenchmarkError(f"{at.name}: {count} outputs of {int(rate * seconds) + warm_up}")
        else:
            time.sleep(seconds)
            took_s, latencies = time.monotonic() - began_s, ["0"] * 4
        ended = [_cpu_s(worker.pid), _cpu_s(broker)]
    used = [(end - start) / took_s * 100 for start, end in zip(began, ended, strict=True)]
    return Measured(*map(float, latencies), *used)


@contextmanager
def _started(at: _Place, role: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this role. It ends with the block. What it logs is in a file of the directory."""
    with (at.directory / f"{at.name}-{role}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_PROCESS), role, *arguments],
            env={**os.environ, "PYTHONPATH": str(at.root)},
            stdout=subprocess.PIPE if role == "read" else log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_S)
        finally:
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline().strip() if process.stdout is not None else ""
    if not line:
        raise BenchmarkError("a process has ended without a result")
    return line


def _cpu_s(pid: int) -> float:
    user, system = process_stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _show(console: Console, found: dict[str, list[Measured]], rate: int, shape: str) -> None:
    table = Table("", "p50 ms", "p99", "p999", "worst", "CPU %", "broker CPU %", box=None)
    for name, runs in found.items():
        columns = [[getattr(each, field) for each in runs] for field in Measured.__slots__]
        table.add_row(name, *(f"{statistics.median(c):.1f} ({min(c):.0f}-{max(c):.0f})" for c in columns))
    console.print(f"latency: {rate:,} records/s, {shape}, median of {len(found['raw'])}")
    console.print(table)
    if rate:
        for other in [name for name in found if name != "pipeline"]:
            pairs = list(zip(found["pipeline"], found[other], strict=True))
            p50 = statistics.median([ours.p50 / theirs.p50 for ours, theirs in pairs])
            p99 = statistics.median([ours.p99 / theirs.p99 for ours, theirs in pairs])
            console.print(f"pipeline relative to {other}: p50 {p50:.2f}, p99 {p99:.2f}", soft_wrap=True)

"""Seconds to restore all tasks of an app on an empty disk: from checkpoints, and from the journal alone.

A worker fills a table from a topic and makes one checkpoint of each task, into a directory; its journal is whole,
since nothing is truncated before there are three. Then, in turns, so that a busy moment meets all alike:

    cp           `cp -r` of the checkpoints' objects to an empty directory on the same disk
    cp, b2sum    the same, and `b2sum` of the copies: a restore compares every file with its hash
    checkpoint   every task restored on an empty disk: fenced, downloaded, verified, opened, acquired
    journal      the same without a checkpoint store: every entry is read and applied

Files that were written a moment ago are in the system's memory for all of them. Of a restore, *copying* is the time
from the first byte of the first task to the last state in its place; the rest are fences, looks at journals by new
clients, and acquire entries, which do not depend on the size. The bound is on copying: at most BOUND times `cp` with
`b2sum`. From memory, hashing takes longer than copying; from a network or a disk, neither counts.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import structlog
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks import NOT_DECLARED, BenchmarkError
from benchmarks.restart_app import PARTITIONS, make_app
from pipeline import KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.core.names import TaskId
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from pipeline.processes.wiring import build_environment
from pipeline.runtime.plan import plan_groups
from pipeline.runtime.restore.progress import RestoreProgress
from pipeline.runtime.restore.restore import RestoredState, restore
from pipeline.runtime.task.task import Task
from pipeline.runtime.worker import Worker
from pipeline.testing import LocalKafka, Step

__all__ = ["BOUND", "KEYS", "run"]

KEYS = 1_500_000
BOUND = 2.0
ROW_BYTES = 200
DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a whole state: bytes that it moves, and the seconds of each round."""

    name: str
    size: int
    seconds: list[float] = field(default_factory=list)
    copying: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return median(self.seconds)

    @property
    def copying_s(self) -> float:
        """The part that is copying, in the median."""
        return median(self.copying)


class _Progress(RestoreProgress):
    """Also notes when copying begins."""

    began_s = 0.0

    def copying(self, total_bytes: int) -> None:
        self.began_s = time.monotonic()
        super().copying(total_bytes)


class _Installed:
    """`ports.Steps`: when the last state was in its place."""

    def __init__(self) -> None:
        self.last_s = 0.0

    def reached(self, step: Step, task: TaskId) -> None:  # noqa: ARG002 - all tasks count alike
        if step is Step.AFTER_INSTALL:
            self.last_s = time.monotonic()


def run(keys: int, rounds: int) -> int:
    """Measure and print; 0 when the bound holds, else 1."""
    console = Console(highlight=False)
    console.print(f"restore: a table of {keys:,} keys in {PARTITIONS} tasks, {rounds} rounds")
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
    ):
        ways = _Bench(kafka.bootstrap_servers, Path(workspace), keys).measure(rounds)
    table = Table("", "MB", "copying, s", "all, s", "each, s", box=None)
    copied, checked, checkpoint, journal = ways
    for way in ways:
        each = " ".join(f"{seconds:.2f}" for seconds in way.seconds)
        table.add_row(way.name, f"{way.size / 1e6:,.0f}", f"{way.copying_s:.2f}", f"{way.median_s:.2f}", each)
    console.print(table)
    to_cp, ratio = (checkpoint.copying_s / way.copying_s for way in (copied, checked))
    verdict = "within" if ratio <= BOUND else "ABOVE"
    console.print(
        f"restore, {keys:,} keys, {checkpoint.size / 1e6:,.0f} MB: copied in {checkpoint.copying_s:.2f} s, "
        f"{to_cp:.1f} times cp, {ratio:.1f} times cp and b2sum, {verdict} {BOUND:.0f}; "
        f"live in {checkpoint.median_s:.2f} s, from the journal alone in {journal.median_s:.2f} s",
        soft_wrap=True,
    )
    return int(ratio > BOUND)


class _Bench:
    def __init__(self, servers: str, workspace: Path, keys: int) -> None:
        self._servers = servers
        self._workspace = workspace
        self._keys = keys
        self._app = declared_app(make_app("restore"))
        self._store = workspace / "checkpoints"
        self._store.mkdir()

    def measure(self, rounds: int) -> tuple[Way, Way, Way, Way]:
        """cp, cp and b2sum, checkpoint, journal."""
        self._load()
        size = sum(file.stat().st_size for file in self._store.rglob("*") if file.is_file())
        copied = Way("cp -r", size)
        checked = Way("cp -r, b2sum", size)
        checkpoint = Way("from checkpoints", size)
        journal = Way("from the journal alone", self._journal_bytes())
        for _ in range(rounds):
            self._on_an_empty_disk(copied, self._copy)
            self._on_an_empty_disk(checked, self._copy_and_check)
            self._on_an_empty_disk(
                checkpoint, lambda disk: self._restore(disk, "a checkpoint", self._store.as_uri())
            )
            self._on_an_empty_disk(journal, lambda disk: self._restore(disk, "an empty state", ""))
        return copied, checked, checkpoint, journal

    def _settings(self, state_dir: Path, store: str) -> Settings:
        worker = WorkerSettings(
            state_dir=state_dir,
            worker_id="bench",
            topics_dir=NOT_DECLARED,
            checkpoint_store=store,
            checkpoint_interval_s=1.0,
            checkpoint_journal_bytes=1 << 40,
            checkpoint_journal_limit_bytes=0,
        )
        return Settings(KafkaSettings(self._servers), worker)

    def _load(self) -> None:
        """Fill the table without a store, then start again with one, until each task has a checkpoint."""
        cluster = KafkaCluster(KafkaSettings(self._servers))
        topics = [f"restore-{what}" for what in ("customers", "orders", "receipts")]
        cluster.create([TopicSpec(topic, PARTITIONS) for topic in topics])
        self._write()
        state = self._workspace / "state"
        reader = KafkaJournalReader(KafkaSettings(self._servers))

        def filled(worker: Worker) -> bool:
            return worker.progress().records == self._keys and worker.idle

        def checkpointed(worker: Worker) -> bool:
            tasks = [task for run in worker._runs for task in run.tasks.values()]  # noqa: SLF001
            return len(tasks) == PARTITIONS and all(
                isinstance(task, Task) and task.applied.checkpoints for task in tasks
            )

        self._work(state, "", filled)
        self._work(state, self._store.as_uri(), checkpointed)
        reader.close()
        cluster.close()

    def _work(self, state: Path, store: str, until: Callable[[Worker], bool]) -> None:
        settings = self._settings(state, store)
        worker = Worker(self._app, build_environment(self._app, settings, log=_quiet()), settings.worker)
        worker.start()
        deadline_s = time.monotonic() + DEADLINE_S
        while not until(worker):
            worker.step()
            if worker.failures or time.monotonic() > deadline_s:
                raise BenchmarkError(f"the table was not filled: {worker.failures}")
        worker.stop()
        worker.close()

    def _write(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "compression.type": "lz4",
                "logger": LOGGER,
            }
        )
        random = Random(1)  # noqa: S311 - rows that do not compress to nothing
        for number in range(self._keys):
            name = random.randbytes(ROW_BYTES // 2).hex()
            while True:
                try:
                    producer.produce("restore-customers", f'{{"name":"{name}"}}', b"customer-%d" % number)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush()

    def _on_an_empty_disk(self, way: Way, act: Callable[[Path], tuple[float, float]]) -> None:
        disk = self._workspace / "empty"
        disk.mkdir()
        try:
            seconds, copying_s = act(disk)
            way.seconds.append(seconds)
            way.copying.append(copying_s)
        finally:
            shutil.rmtree(disk)

    def _copy(self, disk: Path) -> tuple[float, float]:
        began_s = time.monotonic()
        subprocess.run(["cp", "-r", str(self._store), str(disk / "copy")], check=True)  # noqa: S607 - on any PATH
        seconds = time.monotonic() - began_s
        return seconds, seconds

    def _copy_and_check(self, disk: Path) -> tuple[float, float]:
        seconds, _ = self._copy(disk)
        began_s = time.monotonic()
        files = [str(file) for file in (disk / "copy").rglob("*") if file.is_file()]
        subprocess.run(["b2sum", *files], check=True, stdout=subprocess.DEVNULL)  # noqa: S607 - on any PATH
        seconds += time.monotonic() - began_s
        return seconds, seconds

    def _restore(self, disk: Path, start: str, store: str) -> tuple[float, float]:
        """All tasks, side by side, as a worker does it: seconds of all, and of copying."""
        settings, installed = self._settings(disk, store), _Installed()
        environment = build_environment(self._app, settings, steps=installed, log=_quiet())
        progresses = []
        plans, _ = plan_groups(self._app, self._app.groups, environment)
        (plan,) = plans

        def step(task: TaskId) -> Callable[[], RestoredState]:
            progress = _Progress(task, environment.clock, environment.log)
            progresses.append(progress)
            return lambda: restore(
                task,
                "bench",
                plan.identity,
                lambda names: dict.fromkeys(names, 0),
                environment,
                settings.worker,
                plan.group.tables,
                progress=progress,
            )

        began_s = time.monotonic()
        restored = [
            pending.result() for pending in [environment.executor.submit(step(t)) for t in plan.tasks]
        ]
        seconds = time.monotonic() - began_s
        starts = {each.start for each in restored}
        rows = sum(1 for each in restored for _ in each.store.scan(b""))
        for each in restored:
            each.publisher.close()
        environment.executor.close()
        if environment.checkpoints is not None:
            environment.checkpoints.transfers.close()
        if starts != {start} or rows != self._keys:
            raise BenchmarkError(f"restored {rows:,} rows from {starts}, not {self._keys:,} from {start}")
        first_s = min(progress.began_s for progress in progresses)
        return seconds, installed.last_s - first_s if first_s else 0.0

    def _journal_bytes(self) -> int:
        settings = self._settings(self._workspace / "state", "")
        environment = build_environment(self._app, settings, log=_quiet())
        plans, _ = plan_groups(self._app, self._app.groups, environment)
        reader = environment.journals()
        try:
            total = 0
            for task in plans[0].tasks:
                bounds = reader.bounds(task.journal)
                total += sum(len(chunk) for _, chunk in reader.read(task.journal, bounds.start, bounds.end))
            return total
        finally:
            reader.close()
            environment.executor.close()


def _quiet() -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    return logger

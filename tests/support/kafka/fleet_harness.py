"""Several worker processes of the sums app on the real broker, each with its own disk and log."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.source import KafkaSources
from tests.support.kafka.harness import DEADLINE_S, STARTS_S, Workbench
from tests.support.waiting import wait_until


@dataclass
class Process:
    """One process of a worker. `events`: the events in its log, as (wall clock in s, event, fields)."""

    worker: str
    child: subprocess.Popen[bytes]
    log: Path

    def events(self, *names: str) -> list[tuple[float, str, dict[str, object]]]:
        found = []
        for line in self.log.read_text().splitlines():
            try:
                fields: dict[str, object] = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            if fields.get("event") in names:
                at = datetime.fromisoformat(str(fields["timestamp"])).timestamp()
                found.append((at, str(fields["event"]), fields))
        return found

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def live_tasks(self) -> set[str]:
        """The live tasks according to its log."""
        live: set[str] = set()
        for _, event, fields in self.events("task_live", "task_releasing", "task_fenced", "task_failed"):
            (live.add if event == "task_live" else live.discard)(_task(fields))
        return live if self.alive else set()

    def lost_tasks(self) -> set[str]:
        """The tasks that another process had taken, according to its log; it may have them again."""
        lost = self.events("task_taken_over", "task_fenced", "task_superseded")
        return {_task(fields) for _, _, fields in lost}


def _task(fields: dict[str, object]) -> str:
    return f"{fields['app']}/{fields['group']}/{fields['task']}"


class FleetBench:
    """Worker processes by id; each new process of an id has its own log."""

    def __init__(self, bench: Workbench, directory: Path) -> None:
        self.bench = bench
        self._directory = directory
        self.processes: list[Process] = []
        self._disks: dict[str, str] = {}
        self.app = "tests.support.kafka.sums:app"
        self.program = "pipeline"  # the module that the workers run
        self.package: Path | None = None  # the directory of the package that the workers run; None: this one
        self.servers: dict[str, str] = {}  # by worker, if they are not those of the bench

    @classmethod
    def with_topics(
        cls, servers: str, name: str, directory: Path, partitions: int, tasks: int | None = None
    ) -> FleetBench:
        """Topics of one group, named after a test, without a worker."""
        prefix = name[-40:].strip("-")
        bench = Workbench(servers, prefix, directory, groups=("main",), partitions=partitions, tasks=tasks)
        return cls(bench, directory)

    def start(
        self, worker: str, *, empty_disk: bool = False, state: str | None = None, supervised: bool = False
    ) -> Process:
        """Start a process. `state`: the name of its disk; by default the worker's own.

        `supervised`: it is a supervisor with one worker, whose id has the suffix -1.
        """
        disk = state or (f"{worker}-{len(self.processes)}" if empty_disk else self._disk_of(worker))
        log = self._directory / f"{worker}-{len(self.processes)}.log"
        with log.open("ab") as file:
            child = subprocess.Popen(
                [
                    sys.executable, "-m", self.program, "worker", self.app,
                    "--kafka", self.servers.get(worker, self.bench.servers), "--worker-id", worker,
                    "--state-dir", str(self._directory / "disks" / disk), "--commit-interval-ms", "50",
                    *(("--processes", "1") if supervised else ()),
                ],
                cwd=self.package,
                env={**os.environ, **self.bench.names(), **self.bench.environment},
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        process = Process(worker, child, log)
        self._disks[worker] = disk
        self.processes.append(process)
        return process

    def _disk_of(self, worker: str) -> str:
        return self._disks.get(worker, worker)

    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def at_rest(self) -> bool:
        """Whether every task is live in one process, and the numbers of tasks differ by at most one."""
        tasks = [process.live_tasks() for process in self.alive()]
        loads = list(map(len, tasks))
        return sum(loads) == self._task_count == len(set().union(*tasks)) and max(loads) - min(loads) <= 1

    @property
    def _task_count(self) -> int:
        return self.bench.tasks * len(self.bench.groups)

    def wait_for_rest(self, within_s: float = STARTS_S) -> None:
        wait_until(self.at_rest, self.story, within_s)

    def stop_all(self) -> None:
        """Stop all processes with SIGTERM, one after the other. Each must stop cleanly."""
        for process in self.alive():
            process.child.send_signal(signal.SIGTERM)
            assert process.child.wait(DEADLINE_S) == 0, self.story()

    def finish(self) -> None:
        """Wait until all inputs are processed, stop all processes, and compare outputs and every disk with the fold."""
        self.wait_for_rest()
        self.bench.wait_for_outputs(self.alive()[0].child)
        self.stop_all()
        for disk in sorted((self._directory / "disks").iterdir()):
            ends = self.bench.reference.check_at_rest(disk)
        counts: dict[int, int] = defaultdict(int)
        for task, end in ends.items():
            if task.group == self.bench.groups[0]:
                counts[task.number] = end
        assert sum(counts.values()) == len(self.bench.sent)
        assert self.bench.outputs() == self.bench.expected()
        self.bench.verify_at_rest()

    def story(self) -> str:
        """The end of each log."""
        return "\n".join(
            f"--- {process.log.name} ({'alive' if process.alive else process.child.returncode})\n"
            + "\n".join(process.log.read_text().splitlines()[-30:])
            for process in self.processes
        )

    def close(self) -> None:
        """End the processes that this test started."""
        for process in self.processes:
            if process.alive:
                process.child.send_signal(signal.SIGCONT)
                process.child.kill()
            process.child.wait()


@dataclass
class Watcher:
    """Reads committed outputs, and records when each partition made progress."""

    servers: str
    topic: str
    partitions: int
    seen: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __enter__(self) -> Watcher:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _read(self) -> None:
        source = KafkaSources(KafkaSettings(self.servers)).open(f"{self.topic}-watcher")
        source.assign({TopicPartition(self.topic, number): 0 for number in range(self.partitions)})
        while not self._stop.is_set():
            records = source.poll(1_000, 0.02).records
            now = time.time()
            for number in {record.partition() for record in records}:
                self.seen[number].append(now)
        source.close()

    def pauses(self, fleet: FleetBench) -> tuple[float, float]:
        """(the longest pause of a task that stayed, the longest of a task that was acquired again), in s."""
        taken = defaultdict(list)
        for process in fleet.processes:
            for at, _, fields in process.events("task_live"):
                taken[int(str(fields["task"]))].append(at)
        here = moved = 0.0
        for number, times in self.seen.items():
            for before, after in itertools.pairwise(times):
                if any(before - 0.1 <= at <= after for at in taken[number % fleet.bench.tasks]):
                    moved = max(moved, after - before)
                else:
                    here = max(here, after - before)
        return here, moved

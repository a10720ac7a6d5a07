"""The processes of the demonstration: workers, each with a disk of its own, loaders, and who has which task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.recovery import Start

__all__ = ["APP", "DemoError", "Processes", "Worker"]

APP = "examples.flights.app:app"
_PIPELINE = [sys.executable, "-m", "pipeline"]
_COMMAND_S = 60
_SHOWN_LINES = 15


class DemoError(Exception):
    """The demonstration could not be carried through."""


@dataclass
class Worker:
    """One life of a worker: a process, its disk and its log."""

    name: str
    disk: Path
    log: Path
    child: subprocess.Popen[bytes]
    live: set[str] = field(default_factory=set)  # tasks that it took up in this life
    from_checkpoint: set[str] = field(default_factory=set)  # and those of them that it had to fetch
    failed: list[str] = field(default_factory=list)
    read: int = 0

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def new_lines(self) -> list[dict[str, str]]:
        """Whole lines that it has logged since the last time."""
        with self.log.open("rb") as file:
            file.seek(self.read)
            *lines, _unfinished = file.read().split(b"\n")
        self.read += sum(len(line) + 1 for line in lines)
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"the last lines of {self.log.name}:\n" + "\n".join(lines[-_SHOWN_LINES:])


class Processes:
    """All of them. `look` brings `owners` and `moved` up to date from the workers' logs."""

    def __init__(self, servers: str, workspace: Path) -> None:
        self._servers = servers
        self._workspace = workspace
        checkpoints = workspace / "checkpoints"
        checkpoints.mkdir()
        # A task that has committed anything has one before its worker's disk is lost.
        self._environment = {
            **os.environ,
            "PIPELINE_CHECKPOINT_STORE": checkpoints.as_uri(),
            "PIPELINE_CHECKPOINT_INTERVAL_S": "10",
        }
        self._children: list[subprocess.Popen[bytes]] = []
        self._disks: Counter[str] = Counter()
        self._taken: dict[str, tuple[str, Worker]] = {}
        self.workers: list[Worker] = []
        self.moved = 0

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    @property
    def owners(self) -> dict[str, Worker]:
        """Who took each task up last."""
        return {task: worker for task, (_, worker) in self._taken.items()}

    def worker(self, name: str, *, empty_disk: bool = False) -> Worker:
        """Start a worker, on the disk it had before or on an empty one."""
        self._disks[name] += empty_disk
        disk = self._workspace / "disks" / f"{name}-{self._disks[name]}"
        log = self._workspace / f"worker-{name}-{len(self.workers)}.log"
        child = self._spawn(log, "worker", APP, "--worker-id", name, "--state-dir", str(disk))
        self.workers.append(Worker(name, disk, log, child))
        return self.workers[-1]

    def loader(self, topic: str, key: str, archive: Path, rate: int) -> subprocess.Popen[bytes]:
        """Start a load, or go on with it."""
        return self._spawn(
            self._workspace / f"loader-{topic}.log",
            "produce", topic, str(archive), "--format", "csv", "--key", key, "--null", "NA",
            "--timestamp", "time_hour", "--on-missing-key", "null", "--name", f"demo-{topic}", "--rate", str(rate),
        )  # fmt: skip

    def command(self, *arguments: str) -> str:
        """`pipeline ...`, to its end; its standard output."""
        kafka = [] if arguments[0] == "table" else ["--kafka", self._servers]
        done = subprocess.run(  # noqa: S603 - our own command
            [*_PIPELINE, *arguments, *kafka], capture_output=True, text=True, check=False, timeout=_COMMAND_S
        )
        if done.returncode != 0:
            raise DemoError(f"pipeline {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def look(self) -> None:
        """Read on in the logs. Raises DemoError when a worker says that a task failed, or has ended by itself."""
        lines = [(line["timestamp"], worker, line) for worker in self.workers for line in worker.new_lines()]
        for at, worker, line in sorted(lines, key=lambda found: found[0]):
            if line["event"] == "task_live":
                worker.live.add(line["task"])
                if line["start"] == Start.CHECKPOINT.value:
                    worker.from_checkpoint.add(line["task"])
                before = self._taken.get(line["task"])
                self.moved += before is not None and before[1].name != worker.name
                self._taken[line["task"]] = at, worker
            elif line["event"] == "task_failed":
                worker.failed.append(line["task"])
        for worker in self.workers:
            if worker.failed or worker.child.poll() not in {None, -signal.SIGKILL}:
                raise DemoError(f"worker {worker.name} has lost a task or ended; {worker.end_of_log()}")

    def at_rest(self, tasks: int) -> bool:
        """Every task is live in a process that lives, and none has two tasks more than another."""
        loads = Counter(worker.log for worker in self.owners.values() if worker.alive)
        counts = [loads[worker.log] for worker in self.alive]
        return sum(counts) == tasks and max(counts) - min(counts) <= 1

    def tasks_of(self, worker: Worker) -> set[str]:
        return {task for task, owner in self.owners.items() if owner is worker}

    def stop(self, workers: Sequence[Worker], within_s: float) -> None:
        """SIGTERM to each at once; all must end with 0.

        Each is up: it has taken tasks up, so it hears signals. One that was just started would simply die.
        """
        for worker in workers:
            if not worker.live:
                raise DemoError(f"worker {worker.name} never had a task; {worker.end_of_log()}")
            worker.child.send_signal(signal.SIGTERM)
        for worker in workers:
            if worker.child.wait(within_s) != 0:
                raise DemoError(
                    f"worker {worker.name} left with exit code {worker.child.returncode}; {worker.end_of_log()}"
                )

    def close(self) -> None:
        """End whatever is left."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    def _spawn(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            child = subprocess.Popen(  # noqa: S603 - our own command
                [*_PIPELINE, *arguments, "--kafka", self._servers],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._children.append(child)
        return child

"""The processes of a demonstration: workers with one state directory each, loaders, and the owners of tasks.

`Processes` ends only processes that it has started, by their `Popen` objects. A signal ends the demonstration early,
and closes everything that it has started (`ended_by_signals`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from pipeline.config.sources import PREFIX
from pipeline.core.recovery import Start
from pipeline.errors import PipelineError

__all__ = ["DemoError", "Ended", "Processes", "Worker", "ended_by_signals", "signals_postponed"]

_PIPELINE = [sys.executable, "-m", "pipeline"]
_COMMAND_S = 60
_SHOWN_LINES = 15

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Ended(BaseException):
    """A signal has arrived. `exit_code`: what a shell reports for a process that this signal ended."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Ended` inside the block at the first SIGHUP, SIGINT or SIGTERM, so that `finally` clauses run.

    Later signals are ignored until the block has ended: they would interrupt the cleanup, and a held Ctrl-C sends
    many. Only for the main thread.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    with _handled_by(end):
        yield


@contextmanager
def signals_postponed() -> Iterator[None]:
    """Handle signals that arrive inside the block when it has ended. For blocks of some seconds at most.

    Python runs handlers on the main thread, so they cannot interrupt a block on another one. There, this does nothing.

    A handler that raises while `Popen` waits for its child would leave a process that no one can end; one that raises
    during the cleanup would end the cleanup. A signal mask would not do: a child would inherit it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    try:
        with _handled_by(note):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {each: signal.signal(each, handler) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


class DemoError(PipelineError):
    """The demonstration could not be completed."""


@dataclass
class Worker:
    """One process of a worker, with its state directory (`disk`) and its log."""

    name: str
    disk: Path
    log: Path
    child: subprocess.Popen[bytes]
    # The tasks that were live in this process, and those whose state it has from a checkpoint.
    live: set[str] = field(default_factory=set)
    from_checkpoint: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    read: int = 0

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def new_lines(self) -> list[dict[str, str]]:
        """The complete lines that it has logged since the last call."""
        with self.log.open("rb") as file:
            file.seek(self.read)
            *lines, _unfinished = file.read().split(b"\n")
        self.read += sum(len(line) + 1 for line in lines)
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"the last lines of {self.log.name}:\n" + "\n".join(lines[-_SHOWN_LINES:])


class Processes:
    """All processes of one demonstration. `look` updates `owners` and `moved` from the workers' logs.

    Args:
        servers: Kafka's bootstrap servers.
        workspace: the directory of logs, state directories and checkpoints.
        app: the app of the workers, as MODULE:APP.
        directory: the working directory of the processes.
        checkpoint_s: the seconds between two checkpoints of a task. So few that it has one before its worker loses its
            disk.
    """

    def __init__(
        self, servers: str, workspace: Path, app: str, directory: Path, checkpoint_s: int = 10
    ) -> None:
        self._servers = servers
        self._workspace = workspace
        self.app = app
        self._directory = directory
        checkpoints = workspace / "checkpoints"
        checkpoints.mkdir()
        self.store = checkpoints.as_uri()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            "PIPELINE_CHECKPOINT_STORE": self.store,
            "PIPELINE_CHECKPOINT_INTERVAL_S": str(checkpoint_s),
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
        """The process in which each task was live last."""
        return {task: worker for task, (_, worker) in self._taken.items()}

    def worker(self, name: str, *, empty_disk: bool = False, servers: str = "") -> Worker:
        """Start a worker, with its earlier state directory or with an empty one. `servers`: another way to Kafka."""
        self._disks[name] += empty_disk
        disk = self._workspace / "disks" / f"{name}-{self._disks[name]}"
        log = self._workspace / f"worker-{name}-{len(self.workers)}.log"
        child = self._spawn(
            log, "worker", self.app, "--worker-id", name, "--state-dir", str(disk), servers=servers
        )
        self.workers.append(Worker(name, disk, log, child))
        return self.workers[-1]

    def loader(self, topic: str, file: Path, *options: str) -> subprocess.Popen[bytes]:
        """Start `pipeline produce` of a file, or resume it: loads of one topic have one name."""
        log = self._workspace / f"loader-{topic}.log"
        return self._spawn(log, "produce", topic, str(file), "--name", f"demo-{topic}", *options)

    def command(self, *arguments: str) -> str:
        """Run `pipeline ARGUMENTS` to its end; its standard output. Raises DemoError if it fails."""
        kafka = [] if arguments[0] == "table" else ["--kafka", self._servers]
        with self._start([*arguments, *kafka], subprocess.PIPE, subprocess.PIPE) as child:
            try:
                said, errors = (part.decode() for part in child.communicate(timeout=_COMMAND_S))
            except BaseException as error:
                child.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise DemoError(
                        f"pipeline {' '.join(arguments)} was not complete after {_COMMAND_S} s"
                    ) from None
                raise
        if child.returncode != 0:
            raise DemoError(f"pipeline {' '.join(arguments)} failed:\n{said}{errors}")
        return said

    def read_logs(self) -> None:
        """Read new log lines. Raises DemoError if a task has failed, or a worker has ended without being killed."""
        lines = [(line["timestamp"], worker, line) for worker in self.workers for line in worker.new_lines()]
        for at, worker, line in sorted(lines, key=lambda found: found[0]):
            task = f"{line.get('app')}/{line.get('group')}/{line.get('task')}"
            if line.get("restored_from") == Start.CHECKPOINT.value:  # of a live task or a standby copy
                worker.from_checkpoint.add(task)
            if line["event"] == "task_live":
                worker.live.add(task)
                before = self._taken.get(task)
                self.moved += before is not None and before[1].name != worker.name
                self._taken[task] = at, worker
            elif line["event"] == "task_failed":
                worker.failed.append(task)
        for worker in self.workers:
            if worker.failed:
                raise DemoError(
                    f"task {worker.failed[0]} failed on worker {worker.name}; {worker.end_of_log()}"
                )
            if (code := worker.child.poll()) not in {None, -signal.SIGKILL}:
                raise DemoError(f"worker {worker.name} ended with exit code {code}; {worker.end_of_log()}")

    def at_rest(self, tasks: int) -> bool:
        """Whether all tasks are live in running workers, evenly: their numbers differ by one at most."""
        loads = Counter(worker.log for worker in self.owners.values() if worker.alive)
        counts = [loads[worker.log] for worker in self.alive]
        return sum(counts) == tasks and max(counts) - min(counts) <= 1

    def tasks_of(self, worker: Worker) -> set[str]:
        return {task for task, owner in self.owners.items() if owner is worker}

    def stop(self, workers: Sequence[Worker], within_s: float) -> None:
        """Send SIGTERM to all, and wait. Raises DemoError unless all end with 0.

        Each must have had a task: a process that has just started does not handle SIGTERM yet.
        """
        for worker in workers:
            if not worker.live:
                raise DemoError(f"worker {worker.name} never had a task; {worker.end_of_log()}")
            worker.child.send_signal(signal.SIGTERM)
        for worker in workers:
            try:
                code = worker.child.wait(within_s)
            except subprocess.TimeoutExpired:
                raise DemoError(
                    f"worker {worker.name} did not end within {within_s:g} s after SIGTERM; {worker.end_of_log()}"
                ) from None
            if code != 0:
                raise DemoError(f"worker {worker.name} ended with exit code {code}; {worker.end_of_log()}")

    def close(self) -> None:
        """Kill the processes that still run, and close the pipes to all."""
        with signals_postponed():
            for child in self._children:
                if child.poll() is None:
                    child.kill()
                child.wait()
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        pipe.close()

    def _spawn(self, log: Path, *arguments: str, servers: str = "") -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return self._start([*arguments, "--kafka", servers or self._servers], file, file)

    def _start(
        self, arguments: Sequence[str], output: int | IO[bytes], errors: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start `pipeline ARGUMENTS`. A signal is handled only when `close` would end the process."""
        with signals_postponed():
            child = subprocess.Popen(  # noqa: S603 - our own command
                [*_PIPELINE, *arguments],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            self._children.append(child)
        return child

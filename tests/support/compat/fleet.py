"""Workers of two builds that share the tasks of one app: `MixedFleet`."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.checker.entries import Chunks, Entry
from tests.support.compat.builds import Build
from tests.support.compat.program import create_tables
from tests.support.compat.recorded import PROGRAM
from tests.support.compat.topics import INPUT_COLUMNS, Input, Topics, inputs_of, write_rows
from tests.support.waiting import wait_until

__all__ = ["GROUPS", "Handoff", "How", "MixedFleet", "Process"]

GROUPS = ("main", "counting")  # those with journals
PARTITIONS = 6
WAIT_S = 150.0


@dataclass
class Process:
    """One process of a worker, with its own log."""

    worker: str
    build: Build
    child: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def acquired(self) -> list[tuple[str, int]]:
        """Each task that it has acquired, with the number of the acquire entry."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        # The last line may be incomplete.
        whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
        events: list[dict[str, Any]] = list(map(json.loads, whole))
        return [(_task_name(event), event["seq"]) for event in events if event.get("event") == "task_live"]


def _task_name(event: dict[str, Any]) -> str:
    """The task as `app/group/number`: the earlier build logs this name, and this build its parts."""
    task = event["task"]
    return task if isinstance(task, str) else f"{event['app']}/{event['group']}/{task}"


def _task_of(event: dict[str, Any]) -> str:
    """The earlier build names the whole task in one field; this one has app, group and number."""
    task = event["task"]
    return task if isinstance(task, str) else f"{event['app']}/{event['group']}/{task}"


class How(Enum):
    """How a task moved from one process to the next."""

    RELEASED = "the owner gave it up"
    RESTARTED = "the owner was killed, and a process of the same worker acquired it"
    TAKEN_OVER = "the owner was killed, and another worker acquired it"


class Handoff(NamedTuple):
    """A task moved from a process of the build `before` to one of the build `after`."""

    before: str
    after: str
    how: How


class MixedFleet:
    """One app on a Kafka, and the processes of both builds that work on it."""

    def __init__(self, directory: Path, servers: str, app: str) -> None:
        self.directory = directory
        self.servers = servers
        self.app = app
        self.program = f"{PROGRAM}:{app.replace('-', '_')}"
        self.processes: list[Process] = []
        self.topics = Topics(servers)
        self.topics.create(PARTITIONS, *(f"{app}-{name}" for name in ("orders", "sums", "counts", "repeats")))
        with closing(sqlite3.connect(self.directory / f"{app}.sqlite")) as database, database:
            create_tables(database.execute)

    def start(
        self, worker: str, build: Build, *, repaired: bool = False, disk: str = "", tasks: int | None = None
    ) -> Process:
        """Start a process of a worker, on the worker's disk or on another. `tasks`: of the group `main`."""
        log = self.directory / f"{len(self.processes)}-{worker}-{build.name}.log"
        child = build.start(
            log, "-m", "pipeline", "worker", self.program, "--worker-id", worker,
            "--state-dir", str(self.disk(disk or worker)), "--commit-interval-ms", "50",
            variables={
                **self._variables(repaired=repaired),
                **({"COMPAT_TASKS": str(tasks)} if tasks is not None else {}),
            },
        )  # fmt: skip
        process = Process(worker, build, child, log)
        self.processes.append(process)
        return process

    def disk(self, name: str) -> Path:
        """The state directory of a worker."""
        return self.directory / "disks" / name

    def load(self, build: Build, rows: int, *more: str) -> subprocess.Popen[bytes]:
        """Load the app's rows, or continue the load."""
        path = self.directory / "rows.csv"
        if not path.exists():
            write_rows(path, 0, rows)
        load = (
            "produce",
            f"{self.app}-orders",
            str(path),
            *INPUT_COLUMNS,
            "--name",
            f"{self.app}-rows",
            *more,
        )
        process = Process("load", build, self._start(build, *load), self.directory / "loads.log")
        self.processes.append(process)
        return process.child

    def pipeline(self, build: Build, *arguments: str) -> str:
        """Run `pipeline ...` of a build to its end."""
        return build.pipeline(*arguments, variables=self._variables(repaired=True))

    def table(self, name: str, disk: str, build: Build) -> dict[Any, Any]:
        """The rows of a table on a disk, as a build shows them."""
        said = self.pipeline(
            build, "table", "show", name, "--app", self.program, "--state-dir", str(self.disk(disk)), "--json"
        )
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return {tuple(key) if isinstance(key := row["key"], list) else key: row["value"] for row in rows}

    def inputs(self) -> list[list[Input]]:
        """The rows in each partition of the app's input."""
        return inputs_of(self.topics.committed(f"{self.app}-orders"))

    def entries(self, group: str) -> list[list[Entry]]:
        """The entries in each partition of a group's journal."""
        journal = self.topics.committed(f"{self.app}.{group}.journal")
        return [list(Chunks().entries(records)) for records in journal]

    def rows(self, table: str) -> list[tuple[str, int, int]]:
        """The rows that the sinks have written."""
        with closing(sqlite3.connect(self.directory / f"{self.app}.sqlite")) as database:
            return database.execute(f"SELECT account, count, total FROM {table}").fetchall()  # noqa: S608

    def owners(self) -> dict[str, Process]:
        """The process that acquired each task of the groups with journals last, according to the logs."""
        found: dict[str, tuple[int, Process]] = {}
        for process in self.processes:
            for task, seq in process.acquired():
                if task.split("/")[1] in GROUPS and seq > found.get(task, (0, process))[0]:
                    found[task] = seq, process
        return {task: process for task, (_, process) in found.items()}

    def wait_until_shared(self) -> None:
        """Wait until each running worker has tasks, and each task has a running worker."""

        def shared() -> bool:
            owners = self.owners()
            workers = [process for process in self.processes if process.alive and process.worker != "load"]
            return len(owners) == len(GROUPS) * PARTITIONS and {
                id(process) for process in owners.values()
            } == {id(process) for process in workers}

        self.wait(shared)

    def handoffs(self) -> list[Handoff]:
        """All handoffs in the logs, in the order of each task's entries."""
        acquired: dict[str, dict[int, Process]] = defaultdict(dict)
        for process in self.processes:
            for task, seq in process.acquired():
                acquired[task][seq] = process
        found = []
        for group in GROUPS:
            for number, entries in enumerate(self.entries(group)):
                owners = acquired[f"{self.app}/{group}/{number}"]
                kinds = {entry.seq: entry.kind for entry in entries}
                for seq, following in itertools.pairwise(sorted(owners)):
                    assert kinds[following] == "acquire"
                    before, after = owners[seq], owners[following]
                    how = How.RESTARTED if before.worker == after.worker else How.TAKEN_OVER
                    if kinds[following - 1] == "release":
                        how = How.RELEASED
                    found.append(Handoff(before.build.name, after.build.name, how))
        return found

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        process.child.kill()
        process.child.wait()

    def stop(self, process: Process) -> None:
        """SIGTERM: the worker releases its tasks."""
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(WAIT_S) == 0, self.story()

    def stop_all(self) -> None:
        """SIGTERM to all workers, one after the other."""
        for process in self.processes:
            if process.alive:
                self.stop(process)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition. Fails with the ends of all logs."""
        wait_until(condition, self.story, WAIT_S)

    def story(self) -> str:
        """The end of each log."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(encoding="utf-8").splitlines()[-25:])
            for log in sorted(self.directory.glob("*.log"))
        )

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process.alive:
                process.child.kill()
            process.child.wait()
        self.topics.close()

    def _start(self, build: Build, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.directory / "loads.log"
        return build.start(log, "-m", "pipeline", *arguments, variables=self._variables(repaired=True))

    def _variables(self, *, repaired: bool) -> dict[str, str]:
        found = {
            "COMPAT_NAMES": self.app,
            "COMPAT_SCHEMA": "3",
            "COMPAT_DATABASES": str(self.directory),
            "PIPELINE_KAFKA": self.servers,
        }
        return {**found, "COMPAT_REPAIRED": "1"} if repaired else found

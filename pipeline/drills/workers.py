"""Finds the worker processes of an app on this host, and signals and starts them.

A worker is identified by three facts that must agree: it holds the lock of the state directory (`.worker`, with its
process id), the note in that directory has the name of its process, and the Kafka group of the app lists that name. The
start time of a process is part of its identity, because process ids are reused. A signal goes to a descriptor of the
process, after its start time was compared, so that it cannot reach another process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.broker.processes import spawn_detached
from pipeline.core.membership import Member
from pipeline.errors import InputError
from pipeline.ports import Clock, Deadline
from pipeline.processes.system import START_TICKS, process_stat
from pipeline.rocksdb.crash_files import process_in
from pipeline.rocksdb.rocks import CLAIM

__all__ = [
    "LocalWorker",
    "Process",
    "command_of",
    "find_workers",
    "holder_of",
    "start_worker",
    "starting_at",
]

_SUPERVISED = "--supervised"
# In the environment of a worker that a drill has started: its place.
_STARTED_AT = "_PIPELINE_DRILL_STARTED_AT"
# Fields of `process_stat`: the session, and the address of the end of the environment.
_SESSION, _ENVIRONMENT_END = 3, 48
_LOAD_S, _LOAD_POLL_S = 10.0, 0.01


class Process(msgspec.Struct, frozen=True):
    """A process of this host. `started`: its start time, in ticks since the boot."""

    pid: int
    started: int

    @property
    def label(self) -> str:
        """What it is called in reports."""
        return f"process {self.pid}"

    @property
    def alive(self) -> bool:
        """Whether it still runs. A zombie does not."""
        state, started = _stat(self.pid)
        return started == self.started and state not in {"", "Z"}

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP has taken effect."""
        state, started = _stat(self.pid)
        return started == self.started and state in {"T", "t"}

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to exactly this process. Returns False if it no longer runs."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    @staticmethod
    def of(pid: int) -> Process:
        """The process that has this id now."""
        return Process(pid, _stat(pid)[1])


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """A worker process of this host.

    Attributes:
        worker: its worker id.
        name: the name of the process in the Kafka group.
        process: the process.
        place: `<state_dir>/<app>`.
        command: its command line.
        directory: its working directory.
        log: the file to which it logs; None if its standard error is no file.
        supervised: whether a supervisor (`--processes`) restarts it.
    """

    worker: str
    name: str
    process: Process
    place: Path
    command: Sequence[str]
    directory: Path
    log: Path | None
    supervised: bool

    def environment(self) -> dict[str, str]:
        """The variables that it was started with. Raises InputError if it has just ended."""
        try:
            content = Path(f"/proc/{self.process.pid}/environ").read_bytes()
        except OSError as error:
            raise InputError(f"worker {self.worker} (process {self.process.pid}) has just ended") from error
        pairs = (word.partition("=") for word in content.decode(errors="surrogateescape").split("\0"))
        return {name: value for name, separator, value in pairs if separator}


def find_workers(app: str, members: Mapping[str, Member]) -> list[LocalWorker]:
    """The app's workers on this host, by worker id. `members`: those of the Kafka group, by process name."""
    found = []
    for pid in _own_processes():
        for place in _claimed(pid, app):
            name = process_in(place) or ""
            member = members.get(name)
            if member is not None:
                found.append(_worker(pid, member, place))
    return sorted(found, key=lambda each: each.worker)


def holder_of(place: Path) -> Process | None:
    """The process that holds the lock of `<state_dir>/<app>`; None if none does."""
    for pid in _own_processes():
        if place in _claimed(pid, place.name):
            return Process.of(pid)
    return None


def starting_at(place: Path, clock: Clock) -> Process | None:
    """A process that `start_worker` has started for `<state_dir>/<app>`; None if it has started no such process.

    It finds a worker that does not hold the lock yet, also after the driller that started it was killed.
    """
    mark = f"{_STARTED_AT}={place}".encode()
    for pid in _own_processes():
        with suppress(OSError, ValueError):
            process = Process.of(pid)
            # A program that a handler runs has inherited the variable, but is not the leader of the session.
            leads = int(process_stat(pid)[_SESSION]) == pid
            if leads and mark in _variables(process, clock) and process.alive:
                return process
    return None


def _variables(process: Process, clock: Clock) -> list[bytes]:
    """The variables that a process was started with.

    Linux shows none while it replaces the program of the process (execve), as the shell of `start_worker` does.
    """
    environment = Path(f"/proc/{process.pid}/environ")
    deadline = Deadline(clock, _LOAD_S, _LOAD_POLL_S)
    while not (content := environment.read_bytes()) and process.alive:
        if int(process_stat(process.pid)[_ENVIRONMENT_END]):
            content = environment.read_bytes()  # the program has been replaced since, or has no variables
            break
        if not deadline.pause():
            break
    return content.split(b"\0")


def start_worker(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], log: Path, *, place: Path
) -> Process:
    """Start a worker in its own session; it appends its output to `log` and survives the driller.

    `place`: the `<state_dir>/<app>` that it will lock. Raises InputError.
    """
    in_directory = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(directory), *command]
    try:
        pid = spawn_detached(in_directory, {**environment, _STARTED_AT: str(place)}, log, mode=0o600)
    except OSError as error:
        raise InputError(
            f"cannot start {' '.join(command)}: {error.strerror}", hint="start the worker yourself"
        ) from error
    return Process.of(pid)


def command_of(worker: LocalWorker, *, worker_id: str, state_dir: Path) -> list[str]:
    """The worker's command with another id and directory. Of two equal options, the last one counts."""
    return [*worker.command, "--worker-id", worker_id, "--state-dir", str(state_dir)]


def _own_processes() -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid == os.geteuid():
                yield int(entry.name)


def _claimed(pid: int, app: str) -> list[Path]:
    """The places `<state_dir>/<app>` whose lock file the process has open, and whose content is its id."""
    found = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError, ValueError):
                target = descriptor.readlink()
                if target.name == CLAIM and target.parent.name == app and int(target.read_text()) == pid:
                    found.add(target.parent)
    return sorted(found)


def _worker(pid: int, member: Member, place: Path) -> LocalWorker:
    proc = Path(f"/proc/{pid}")
    words = proc.joinpath("cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    log: Path | None = (proc / "fd" / "2").readlink()
    return LocalWorker(
        worker=member.worker,
        name=member.process,
        process=Process.of(pid),
        place=place,
        command=words,
        directory=(proc / "cwd").readlink(),
        log=log if log is not None and log.is_file() else None,
        supervised=_SUPERVISED in words,
    )


def _stat(pid: int) -> tuple[str, int]:
    """(state, start time) of a process; an empty state if there is none. Reaps a child that has ended."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = process_stat(pid)
    except OSError:
        return "", -1
    return fields[0], int(fields[START_TICKS])

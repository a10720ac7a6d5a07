"""Workers in containers as targets of drills: found, signalled and started through the CLI of podman or docker.

A container is identified as a worker by three facts that must agree: it runs `pipeline worker`, the note in its state
directory has the name of its process, and the Kafka group of the app lists that name. Its id and the time of its start
are part of its identity. SIGKILL and SIGTERM are `kill`, SIGSTOP and SIGCONT are `pause` and `unpause`. An engine does
not apply its restart policy to a container that was killed by a command, so a drill starts it again.

A disk is lost by a rename inside of the volume, like that of a local worker: a container with the same image and the
volumes of the worker makes it, so neither rights on the host nor a removal of the container are needed.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from pipeline.core.membership import Member
from pipeline.errors import InputError
from pipeline.rocksdb.crash_files import NOTE, process_in_note

__all__ = ["ENGINES", "Container", "ContainerWorker", "Engine", "find_containers", "move_in_volume"]

ENGINES = ("podman", "docker")
_COMMAND_S = 60.0
_SHOWN = 500
_SIGNALS: Mapping[signal.Signals, Sequence[str]] = {
    signal.SIGKILL: ("kill", "--signal", "KILL"),
    signal.SIGTERM: ("kill", "--signal", "TERM"),
    signal.SIGSTOP: ("pause",),
    signal.SIGCONT: ("unpause",),
}
# Prints what it did. A new directory at the target is valid and kept, as in intent.MoveBack.
_MOVE = """
import os, shutil, sys
source, target = sys.argv[1:]
if not os.path.isdir(source):
    print("was in its place")
elif os.path.isdir(target):
    shutil.rmtree(source)
    print("replaced by a new one; the old one was deleted")
else:
    os.rename(source, target)
    print("moved")
"""


class EngineError(InputError):
    """A command of the container engine has failed."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs commands of a container engine, one of `ENGINES`."""

    name: str

    def run(self, *arguments: str) -> bytes:
        """Run a command and return its output. Raises EngineError."""
        path = shutil.which(self.name)
        if path is None:
            raise EngineError(
                f"the command {self.name} was not found",
                hint=f"run the drill on the host of the containers, as a user who may run {self.name}",
            )
        told = f"{self.name} {' '.join(arguments[:3])}"
        try:
            done = subprocess.run(  # noqa: S603 - an engine that the operator has chosen
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(
                f"{told}: {error}", hint=f"check that {self.name} answers: {self.name} ps"
            ) from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN:] or f"exit code {done.returncode}"
            raise EngineError(f"{told}: {said}", hint=f"check that {self.name} answers: {self.name} ps")
        return done.stdout

    def inspect(self, *containers: str) -> list[dict[str, Any]]:
        """What the engine knows about containers. Raises EngineError."""
        found: list[dict[str, Any]] = json.loads(self.run("inspect", "--type", "container", *containers))
        return found

    def read(self, container: str, path: PurePosixPath) -> bytes | None:
        """A file of a container; None if it does not exist."""
        try:
            archive = self.run("cp", f"{container}:{path}", "-")
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                file = files.extractfile(files.getmembers()[0])
                return file.read() if file is not None else None
        except (EngineError, tarfile.TarError, IndexError):
            return None


class Container(msgspec.Struct, frozen=True):
    """One run of a container. It has the interface of `workers.Process`."""

    engine: str
    id: str
    name: str
    started: str

    @property
    def label(self) -> str:
        """What it is called in reports."""
        return f"container {self.name}"

    @property
    def alive(self) -> bool:
        """Whether this run has not ended."""
        return self._runs()

    @property
    def stopped(self) -> bool:
        """Whether it is paused."""
        return bool(self._state().get("Paused"))

    def send(self, number: signal.Signals) -> bool:
        """Do what stands for a signal. Returns False if this run has ended."""
        if not self._runs():
            return False
        try:
            Engine(self.engine).run(*_SIGNALS[number], self.id)
        except EngineError:
            if self._runs():
                raise
            return False
        return True

    def start(self) -> str:
        """Start the container unless it runs. Returns what was done. Raises EngineError."""
        if _state_of(self.engine, self.id).get("Running"):
            return "runs"
        Engine(self.engine).run("start", self.id)
        return f"started by {self.engine}"

    def _runs(self) -> bool:
        state = self._state()
        return bool(state.get("Running") or state.get("Paused"))

    def _state(self) -> Mapping[str, Any]:
        state = _state_of(self.engine, self.id)
        return state if state.get("StartedAt") == self.started else {}


@dataclass(frozen=True, slots=True)
class ContainerWorker:
    """A worker in a container. `place`: `<state_dir>/<app>` in the container. `volume`: whether it is on a volume.

    The other attributes are those of `workers.LocalWorker`.
    """

    worker: str
    name: str
    process: Container
    place: PurePosixPath
    volume: bool
    image: str
    user: str
    command: Sequence[str]
    log: Path | None = None
    supervised: bool = False


def find_containers(app: str, members: Mapping[str, Member], engine: Engine) -> list[ContainerWorker]:
    """The app's workers in running containers, by worker id. Raises EngineError."""
    ids = engine.run("ps", "--quiet", "--no-trunc").decode().split()
    found = []
    for each in engine.inspect(*ids) if ids else ():
        worker = _worker(app, members, engine, each)
        if worker is not None:
            found.append(worker)
    return sorted(found, key=lambda worker: worker.worker)


def move_in_volume(worker: ContainerWorker, source: PurePosixPath, target: PurePosixPath) -> str:
    """Rename a directory in a volume of a worker. Returns what was done. Raises EngineError."""
    return run_move(worker.process, worker.image, worker.user, str(source), str(target))


def run_move(container: Container, image: str, user: str, source: str, target: str) -> str:
    """Rename with the image and the volumes of a container."""
    as_user = ["--user", user] if user else []
    options = [
        "--rm",
        "--network",
        "none",
        "--volumes-from",
        container.id,
        *as_user,
        "--entrypoint",
        "python3",
    ]
    said = Engine(container.engine).run("run", *options, image, "-c", _MOVE, source, target)
    return said.decode(errors="replace").strip()


def _worker(
    app: str, members: Mapping[str, Member], engine: Engine, found: Mapping[str, Any]
) -> ContainerWorker | None:
    config = found["Config"]
    entry = config.get("Entrypoint") or ()
    words = [
        *(entry.split() if isinstance(entry, str) else entry),
        *(config.get("Cmd") or ()),
    ]  # podman 4: a text
    if "worker" not in words:
        return None
    place = _state_dir(words, config) / app
    name = process_in_note(engine.read(found["Id"], place / NOTE) or b"")
    member = members.get(name or "")
    if member is None:
        return None
    mounts = [PurePosixPath(mount["Destination"]) for mount in found.get("Mounts") or ()]
    # The directory itself must be renamed, so the mount must be above it.
    volume = any(mount in place.parents for mount in mounts)
    identity = Container(engine.name, found["Id"], found["Name"].lstrip("/"), found["State"]["StartedAt"])
    return ContainerWorker(
        member.worker,
        member.process,
        identity,
        place,
        volume,
        found["Image"],
        config.get("User") or "",
        words,
    )


def _state_dir(words: Sequence[str], config: Mapping[str, Any]) -> PurePosixPath:
    """The state directory: of the command line, of the environment, or the default."""
    pairs = [str(pair).partition("=") for pair in config.get("Env") or ()]
    environment = {name: value for name, _, value in pairs}
    chosen = environment.get("PIPELINE_STATE_DIR", ".pipeline/state")
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option == "--state-dir":
            chosen = value
        elif option.startswith("--state-dir="):
            chosen = option.partition("=")[2]
    return PurePosixPath(str(config.get("WorkingDir") or "/"), chosen)


def _state_of(engine: str, container: str) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = Engine(engine).inspect(container)[0]["State"]
    except EngineError:
        return {}  # it was removed
    return state

"""What a drill changes, and how it is undone: `Intent`, and `IntentFile`.

A drill notes a step in the file before it makes the change. So `pipeline drill undo` can restore everything after the
driller was killed at any point. Each step can be undone more than once, and also if its change was not made. The file
contains the environment of the workers that must be restarted, which can have secrets: only its owner can read it.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from pipeline.broker import LocalKafka
from pipeline.config import load_settings
from pipeline.core.names import GroupId, topics_of_shadow, workers_group
from pipeline.core.suggestions import counted
from pipeline.directories import make_private
from pipeline.drills.containers import Container, run_move
from pipeline.drills.directory import usable
from pipeline.drills.network_faults import ProxyPlace
from pipeline.drills.report import Restored
from pipeline.drills.workers import Process, holder_of, start_worker, starting_at
from pipeline.errors import ConfigError, InputError, PipelineError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import Clock, Cluster, Deadline

__all__ = [
    "ContinueContainer",
    "ContinueProcess",
    "DeleteShadow",
    "EndNetworkFault",
    "EndProcess",
    "Intent",
    "IntentFile",
    "MoveBack",
    "MoveBackInVolume",
    "RemovePath",
    "RestoreFile",
    "StartBroker",
    "StartContainer",
    "StartWorker",
    "Step",
    "undo",
]

_VERSION = 1
_END_S = 40.0
_START_S = 60.0
_POLL_S = 0.1
_MEMBER_S = 30.0


class ContinueProcess(msgspec.Struct, frozen=True, tag=True):
    """Send SIGCONT to a stopped worker."""

    worker: str
    process: Process

    def __str__(self) -> str:
        return f"continue worker {self.worker}, process {self.process.pid}"

    def undo(self, _clock: Clock) -> str:
        return "continued" if self.process.send(signal.SIGCONT) else "the process has ended"


class StartWorker(msgspec.Struct, frozen=True, tag=True):
    """Start a worker again, unless a process holds its state directory. `place`: `<state_dir>/<app>`."""

    worker: str
    place: str
    command: list[str]
    directory: str
    environment: dict[str, str]
    log: str

    def __str__(self) -> str:
        return f"start worker {self.worker}"

    def undo(self, clock: Clock) -> str:
        place = Path(self.place)
        # A driller that was killed can have started one, which is still loading its modules. A second one would end.
        found = holder_of(place) or starting_at(place, clock)
        process = found or start_worker(
            self.command, Path(self.directory), self.environment, Path(self.log), place=place
        )
        deadline = Deadline(clock, _START_S, _POLL_S)
        while True:
            # Read first: if another process kept it from starting, that one is the holder.
            alive = process.alive
            holder = holder_of(place)
            if holder is not None:
                break
            if not alive:
                raise InputError(f"worker {self.worker} ended at its start", hint=f"read {self.log}")
            if not deadline.pause():
                raise InputError(
                    f"worker {self.worker} did not start in {_START_S:.0f} s", hint=f"read {self.log}"
                )
        return f"{'runs' if found or holder != process else 'started'} as process {holder.pid}"


class EndProcess(msgspec.Struct, frozen=True, tag=True):
    """Stop a worker that the drill has added, which holds the lock of `place`."""

    worker: str
    place: str

    def __str__(self) -> str:
        return f"stop worker {self.worker}"

    def undo(self, clock: Clock) -> str:
        place = Path(self.place)
        process = holder_of(place) or starting_at(place, clock)
        if process is None:
            return "does not run"
        process.send(signal.SIGTERM)
        deadline = Deadline(clock, _END_S, _POLL_S)
        while process.alive:
            if not deadline.pause():
                process.send(signal.SIGKILL)
                return "killed, because it did not stop"
        return "stopped"


class ContinueContainer(msgspec.Struct, frozen=True, tag=True):
    """Unpause the container of a worker."""

    worker: str
    container: Container

    def __str__(self) -> str:
        return f"continue worker {self.worker}, {self.container.label}"

    def undo(self, _clock: Clock) -> str:
        if not self.container.alive:
            return "the container has ended"
        if self.container.stopped:
            self.container.send(signal.SIGCONT)
        return "continued"


class StartContainer(msgspec.Struct, frozen=True, tag=True):
    """Start the container of a worker again, unless it runs."""

    worker: str
    container: Container

    def __str__(self) -> str:
        return f"start worker {self.worker}, {self.container.label}"

    def undo(self, _clock: Clock) -> str:
        return self.container.start()


class MoveBackInVolume(msgspec.Struct, frozen=True, tag=True):
    """As MoveBack, in a volume of a container. `image`, `user`: those of the container."""

    container: Container
    image: str
    user: str
    source: str
    target: str

    def __str__(self) -> str:
        return f"move {self.source} back to {self.target} in the volume of {self.container.label}"

    def undo(self, _clock: Clock) -> str:
        return run_move(self.container, self.image, self.user, self.source, self.target)


class StartBroker(msgspec.Struct, frozen=True, tag=True):
    """Start the local broker in a data directory."""

    data_dir: str

    def __str__(self) -> str:
        return f"start the broker in {self.data_dir}"

    def undo(self, _clock: Clock) -> str:
        kafka = LocalKafka(Path(self.data_dir))
        return "started" if kafka.start() else "was running"


class MoveBack(msgspec.Struct, frozen=True, tag=True):
    """Rename `source` to `target` again. A new directory at `target` is valid and kept, and `source` is deleted."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"move {self.source} back to {self.target}"

    def undo(self, _clock: Clock) -> str:
        source, target = Path(self.source), Path(self.target)
        if not source.exists():
            return "was in its place"
        if target.is_dir():
            shutil.rmtree(source)
            return "replaced by a new one; the old one was deleted"
        target.unlink(missing_ok=True)  # the file that kept it from being created
        source.rename(target)
        return "moved back"


class RestoreFile(msgspec.Struct, frozen=True, tag=True):
    """Copy a backup over a damaged file, and delete the backup."""

    backup: str
    target: str

    def __str__(self) -> str:
        return f"restore {self.target}"

    def undo(self, _clock: Clock) -> str:
        backup, target = Path(self.backup), Path(self.target)
        if not backup.exists():
            return "was in order"
        if not target.exists():  # the app has deleted it meanwhile: nothing names it any more
            backup.unlink()
            return "the app has deleted the object"
        staged = target.with_name(f"{target.name}.restored")
        shutil.copyfile(backup, staged)
        staged.replace(target)
        backup.unlink()
        return "restored"


class RemovePath(msgspec.Struct, frozen=True, tag=True):
    """Delete a file or a directory that the drill has created."""

    path: str

    def __str__(self) -> str:
        return f"delete {self.path}"

    def undo(self, _clock: Clock) -> str:
        path = Path(self.path)
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            return "was not there"
        return "deleted"


class EndNetworkFault(msgspec.Struct, frozen=True, tag=True):
    """Let a proxy forward everything again. It does so at the fault's deadline, too."""

    place: str

    def __str__(self) -> str:
        return f"end the fault of the proxy in {self.place}"

    def undo(self, _clock: Clock) -> str:
        return "ended" if ProxyPlace(Path(self.place)).end() else "had ended"


class DeleteShadow(msgspec.Struct, frozen=True, tag=True):
    """Delete the topics and the Kafka groups of a shadow app. Its process has ended with the driller."""

    shadow: str
    groups: list[str]
    kafka: str

    def __str__(self) -> str:
        return f"delete the topics of shadow app {self.shadow}"

    def undo(self, clock: Clock) -> str:
        settings = load_settings({"bootstrap_servers": self.kafka}).kafka
        with closing(KafkaCluster(settings)) as cluster:
            topics = topics_of_shadow(self.shadow, cluster.topics())
            cluster.delete(topics)
            names = [GroupId(self.shadow, group).consumer_group for group in self.groups]
            for group in [workers_group(self.shadow), *names]:
                self._forget(group, cluster, clock)
        return f"{counted(len(topics), 'topic')} deleted"

    @staticmethod
    def _forget(group: str, cluster: Cluster, clock: Clock) -> None:
        """Delete a Kafka group. Kafka lists a killed member for some seconds."""
        deadline = Deadline(clock, _MEMBER_S, 1.0)
        while True:
            try:
                return cluster.forget(group)
            except ConfigError:
                if not deadline.pause():
                    raise


Step = (
    ContinueProcess
    | StartWorker
    | EndProcess
    | ContinueContainer
    | StartContainer
    | MoveBackInVolume
    | StartBroker
    | MoveBack
    | RestoreFile
    | RemovePath
    | DeleteShadow
    | EndNetworkFault
)


class Intent(msgspec.Struct, frozen=True):
    """A drill that has not been completed. `driller`: its process. `steps`: in the order of the changes."""

    version: int
    id: str
    drill: str
    app: str
    kafka: str
    driller: Process
    began_ms: int
    steps: tuple[Step, ...] = ()


class IntentFile:
    """The intent of the drill of an app, in the drills' directory."""

    def __init__(self, directory: Path, app: str) -> None:
        self.path = directory / f"intent-{app}.json"
        self._abort = directory / f"abort-{app}"
        self._intent: Intent | None = None

    def read(self) -> Intent | None:
        """The intent of a drill that runs or was not undone; None if there is none. Raises InputError."""
        with usable(self.path.parent):
            try:
                content = self.path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            return msgspec.json.decode(content, type=Intent)
        except msgspec.MsgspecError as error:
            raise InputError(
                f"{self.path} cannot be understood: {error}",
                hint="use the release that wrote it; or restore what it names by hand, and delete it",
            ) from error

    def begin(self, intent: Intent) -> None:
        """Write the intent of a drill that begins. Raises InputError."""
        with usable(self.path.parent):
            make_private(self.path.parent)
            self._abort.unlink(missing_ok=True)
            self._write(intent)

    def add(self, step: Step) -> None:
        """Add a step. When this returns, the step survives a crash, and the change may be made. Raises InputError."""
        if self._intent is not None:
            with usable(self.path.parent):
                self._write(msgspec.structs.replace(self._intent, steps=(*self._intent.steps, step)))

    def ask_to_abort(self) -> None:
        """Ask the driller to abort. Raises InputError."""
        with usable(self.path.parent):
            self._abort.touch(mode=0o600)

    @property
    def asked_to_abort(self) -> bool:
        return self._abort.exists()

    def end(self) -> None:
        """Everything is restored."""
        self.path.unlink(missing_ok=True)
        self._abort.unlink(missing_ok=True)
        self._intent = None

    def _write(self, intent: Intent) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(msgspec.json.format(msgspec.json.encode(intent)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._intent = intent

    @staticmethod
    def new(identity: str, drill: str, app: str, kafka: str, clock: Clock) -> Intent:
        """The intent of a drill of this process, without steps."""
        return Intent(_VERSION, identity, drill, app, kafka, Process.of(os.getpid()), clock.wall_ms())


def undo(intent: Intent, clock: Clock) -> Iterator[Restored]:
    """Undo the steps, the last one first. A step that fails does not keep the others from being undone."""
    for step in reversed(intent.steps):
        try:
            yield Restored(str(step), step.undo(clock))
        except (PipelineError, OSError) as error:
            yield Restored(str(step), str(error), failed=True)

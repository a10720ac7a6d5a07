"""What a drill may look at before it begins: `Scene`. It also predicts how long recoveries take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
from pipeline.core.names import TaskChoice, TaskId
from pipeline.core.peer_watch import UNREACHABLE_S
from pipeline.core.recovery_time import RecoverySpeed, detection_s, median_speed, predicted_restore_s
from pipeline.drills.conditions import Condition
from pipeline.drills.containers import ContainerWorker
from pipeline.drills.observation import Sample
from pipeline.drills.workers import LocalWorker
from pipeline.errors import PipelineError
from pipeline.ports import CheckpointStore, Clock, Cluster, JournalReader
from pipeline.processes.wiring import build_environment
from pipeline.runtime.environment import Environment
from pipeline.runtime.status import TaskStatus

__all__ = ["Options", "RefusedDrillError", "Scene", "WorkerTarget", "environment_of"]

WorkerTarget = LocalWorker | ContainerWorker


class RefusedDrillError(PipelineError):
    """A precondition is not met. Nothing was changed.

    Attributes:
        name: A short name of the reason, such as `not-allowed`.
        reason: The message without the name.
    """

    def __init__(self, name: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"refused ({name}): {message}", hint=hint)
        self.name = name
        self.reason = message


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator has chosen.

    Attributes:
        worker: the worker to harm; empty: the one with the most tasks.
        task: the task, for drills that are about one; None: the drill chooses.
        seconds: how long a fault lasts; None: the drill's own duration.
        max_tasks: the drill is refused if it would affect more tasks.
        target: MODULE:APP, for drills that run code of the app; empty if only the app's name was given.
        reason: why the drill is run, for the report.
        since: where a replay begins: a time, or TOPIC/PARTITION/OFFSET; empty: as early as possible.
        abort_if: the abort conditions of the operator.
    """

    worker: str = ""
    task: TaskChoice | None = None
    seconds: float | None = None
    max_tasks: int | None = None
    target: str = ""
    reason: str = ""
    abort_if: Sequence[Condition] = ()
    since: str = ""


@dataclass
class Scene:
    """The app before a drill."""

    app: str
    settings: Settings
    options: Options
    cluster: Cluster
    reader: JournalReader
    clock: Clock
    store: CheckpointStore | None
    sample: Sample
    workers: Sequence[WorkerTarget]

    def victim(self) -> WorkerTarget:
        """The worker to harm: the chosen one; else one that runs the chosen task; else the one with the most tasks.

        Raises RefusedDrillError.
        """
        known = ", ".join(each.worker for each in self.workers)
        if self.options.worker:
            for each in self.workers:
                if each.worker == self.options.worker:
                    return each
            raise RefusedDrillError(
                "worker-not-found",
                f"no worker {self.options.worker} of app {self.app} runs on this host as this user",
                hint=f"the workers here: {known or 'none'}. Run the drill on the worker's host",
            )
        if not self.workers:
            raise RefusedDrillError(
                "no-local-worker",
                f"no worker of app {self.app} runs on this host as this user",
                hint="run the drill on a worker's host, as the user of the worker; for workers in containers, add "
                "--containers podman or --containers docker",
            )
        chosen = self.options.task
        possible = [
            each
            for each in self.workers
            if chosen is None or any(map(chosen.means, self.tasks_of(each.worker)))
        ]
        if not possible:
            raise RefusedDrillError(
                "no-task",
                f"no worker of app {self.app} on this host runs task {chosen}",
                hint=f"see which worker runs which task: pipeline status {self.app} --tasks",
            )
        return max(possible, key=lambda each: (len(self.tasks_of(each.worker)), each.worker))

    def local_victim(self) -> LocalWorker:
        """As `victim`, for drills that need the worker's files. Raises RefusedDrillError for a container."""
        victim = self.victim()
        if isinstance(victim, ContainerWorker):
            raise RefusedDrillError(
                "container",
                f"worker {victim.worker} runs in {victim.process.label}, and this drill needs a process of this host",
                hint="the drills for containers: kill-worker, freeze-worker, lose-disk, rolling-restart, scale-in",
            )
        return victim

    def tasks_of(self, worker: str) -> list[TaskId]:
        """The tasks that a worker runs."""
        return [status.task for status in self.sample.status.tasks if status.worker == worker]

    def statuses(self, tasks: Sequence[TaskId]) -> list[TaskStatus]:
        """The status of these tasks."""
        return [status for status in self.sample.status.tasks if status.task in tasks]

    def heirs(self, worker: str) -> list[str]:
        """The other workers that run the groups of all its tasks."""
        groups = {task.group for task in self.tasks_of(worker)}
        others = (each for each in self.sample.status.workers if each.worker != worker)
        return [each.worker for each in others if groups <= each.rings.keys()]

    def require_heir(self, worker: str) -> None:
        """Raise RefusedDrillError unless another worker can take over the tasks of `worker`."""
        if not self.heirs(worker):
            raise RefusedDrillError(
                "one-worker",
                f"app {self.app} has no other worker that runs the groups of {worker}, so none can take over its tasks",
                hint="start a second worker that runs the same groups",
            )

    def detect_s(self) -> float:
        """The predicted seconds until the others take over the tasks of a lost worker."""
        worker = self.settings.worker
        return detection_s(worker.membership_interval_s, worker.join_delay_s)

    def detect_death_s(self, victim: WorkerTarget) -> float:
        """As `detect_s`, for a process that is killed. Peers find a container unreachable after some time."""
        worker = self.settings.worker
        watched = any(each.watched for each in self.sample.status.workers if each.worker == victim.worker)
        gone_s = UNREACHABLE_S if watched and isinstance(victim, ContainerWorker) else 0.0
        return detection_s(worker.membership_interval_s, worker.join_delay_s, watched=watched) + gone_s

    def notice_s(self) -> float:
        """The predicted seconds until the others act on a worker that has joined, or has said that it leaves."""
        worker = self.settings.worker
        return worker.membership_interval_s / 2 + worker.join_delay_s

    def after_kill(
        self, victim: WorkerTarget, tasks: Sequence[TaskId], restart_s: float
    ) -> tuple[str, float]:
        """What ends the pause of the tasks of a killed worker, and after how many predicted seconds.

        The other workers take over, unless the restart is faster: `restart_s`, with the restores that it needs.
        """
        restarted = "it is restarted", restart_s
        others = len(self.heirs(victim.worker))
        if others < 1:
            return restarted
        taken_s = self.detect_death_s(victim) + self.restore_s(tasks, workers=others)
        return min(restarted, ("the other workers take over", taken_s), key=lambda each: each[1])

    def start_s(self, worker: str) -> float:
        """The predicted seconds of the start of a worker's process, until it asks for tasks."""
        return self._speed(worker).start_s

    def restore_s(self, tasks: Sequence[TaskId], *, worker: str = "", workers: int = 1) -> float:
        """The predicted seconds of the restore of these tasks on empty disks.

        It is computed as for the column `restore` of `pipeline status`, which is about one task.

        Args:
            tasks: The tasks.
            worker: The worker that restores them; empty: any.
            workers: The number of workers that share them.
        """
        return self.copy_s(tasks, worker=worker, workers=workers) + self.reopen_s(worker)

    def copy_s(self, tasks: Sequence[TaskId], *, worker: str = "", workers: int = 1) -> float:
        """The part of `restore_s` that a standby copy takes, while the owners process."""
        statuses = self.statuses(tasks)
        share = -(-len(statuses) // max(1, workers)) / max(1, len(statuses))
        copied = round(share * sum(status.checkpoint_bytes for status in statuses))
        replayed = round(share * sum(status.journal_bytes for status in statuses))
        return predicted_restore_s(copied, replayed, self._speed(worker)) - self.reopen_s(worker)

    def reopen_s(self, worker: str) -> float:
        """The predicted seconds of a restore on a disk that has the state."""
        return predicted_restore_s(0, 0, self._speed(worker))

    def _speed(self, worker: str) -> RecoverySpeed:
        speeds = self.sample.status.speeds
        return speeds[worker] if worker in speeds else median_speed(speeds.values())


@contextmanager
def environment_of(scene: Scene) -> Iterator[Environment]:
    """Open the clients of the app's Kafka and checkpoint store, and close them afterwards."""
    environment = build_environment(DeclaredApp(scene.app), scene.settings)
    try:
        yield environment
    finally:
        environment.executor.close()
        if environment.checkpoints is not None:
            environment.checkpoints.transfers.close()
        environment.cluster.close()

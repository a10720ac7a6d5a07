"""The interface of a drill: `Drill`; what it may look at: `Scene`; and what it may do: `Run`.

A drill is a class with a name, a hypothesis, preconditions, a plan, and one method that performs it from the fault to
the recovery. `Run` notes how to undo each change before it is made. While a drill waits, `Run` observes the app, and
ends the drill when an abort condition becomes true.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.api.app import DeclaredApp
from pipeline.config import Settings
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskChoice, TaskId
from pipeline.core.peer_watch import UNREACHABLE_S
from pipeline.core.recovery_time import RecoverySpeed, detection_s, median_speed, predicted_restore_s
from pipeline.core.suggestions import counted
from pipeline.drills.conditions import Condition
from pipeline.drills.containers import ContainerWorker
from pipeline.drills.intent import IntentFile, Step
from pipeline.drills.observation import Observer, Sample, short
from pipeline.drills.report import Effect, Evidence, Finding
from pipeline.drills.workers import LocalWorker
from pipeline.errors import PipelineError
from pipeline.ports import CheckpointStore, Clock, Cluster, Deadline, JournalReader
from pipeline.processes.wiring import build_environment
from pipeline.runtime.environment import Environment
from pipeline.runtime.status import TaskStatus

__all__ = [
    "AbortedError",
    "Drill",
    "Options",
    "Plan",
    "RefusedDrillError",
    "Run",
    "Scene",
    "UnrecoveredError",
    "WorkerTarget",
    "environment_of",
]

WorkerTarget = LocalWorker | ContainerWorker

_POLL_S = 0.1
_SMALL_LAG = 50  # records that may be in a commit in progress


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


class AbortedError(Exception):
    """An abort condition has become true, or an operator has asked for it."""


class UnrecoveredError(Exception):
    """The app did not recover in time, or the fault did not take effect."""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill would do. `tasks`: those that it should affect. `predicted_s`: until the last of them commits."""

    target: str
    actions: Sequence[str]
    effect: str
    tasks: Sequence[TaskId]
    predicted_s: float


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

    def require_another_worker(self) -> None:
        """Raise RefusedDrillError unless another worker can take over."""
        if len(self.sample.status.workers) < 2:
            raise RefusedDrillError(
                "one-worker",
                f"app {self.app} has only one worker, so no other can take over its tasks",
                hint="start a second worker",
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
        others = len(self.sample.status.workers) - 1
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
        statuses = self.statuses(tasks)
        share = -(-len(statuses) // max(1, workers)) / max(1, len(statuses))
        copied = sum(status.checkpoint_bytes for status in statuses)
        replayed = sum(status.journal_bytes for status in statuses)
        return predicted_restore_s(round(copied * share), round(replayed * share), self._speed(worker))

    def reopen_s(self, worker: str) -> float:
        """The predicted seconds of a restore on a disk that has the state."""
        return predicted_restore_s(0, 0, self._speed(worker))

    def _speed(self, worker: str) -> RecoverySpeed:
        speeds = self.sample.status.speeds
        return speeds[worker] if worker in speeds else median_speed(speeds.values())


@dataclass
class Run:
    """A drill that runs. Every wait observes the app.

    `injected_ms`: the fault. `healed_ms`: its end, if no task could commit until then. `struck_ms`: when the fault
    reached a task, if it reached one after the other.

    Raises AbortedError from any wait, and UnrecoveredError if a wait takes too long.
    """

    scene: Scene
    observer: Observer
    intent: IntentFile
    say: Callable[[str], None]
    conditions: Sequence[Condition]
    predicted: Sequence[TaskId]
    injected_ms: int = 0
    healed_ms: int = 0
    struck_ms: dict[TaskId, int] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: int = 0
    equal: int = 0
    outputs_compared: int = 0
    fired: str = ""

    @property
    def clock(self) -> Clock:
        return self.scene.clock

    def will_undo(self, step: Step) -> None:
        """Note how to undo the next change. It may be made when this returns."""
        self.intent.add(step)

    def act(self, what: str, *, fault: bool = True) -> None:
        """Report an action. The first fault starts the clock of the recovery."""
        now_ms = self.clock.wall_ms()
        if fault and not self.injected_ms:
            self.injected_ms = now_ms
        after = f"{(now_ms - self.injected_ms) / 1000:6.1f} s" if self.injected_ms else "  before"
        self.actions.append(what)
        self.say(f"{after}  {what}")

    def proves(self, text: str) -> None:
        """Note a fact that shows that the fault took effect."""
        self.evidence.append(Evidence(at_ms=self.clock.wall_ms(), text=text))

    def wait(self, condition: Callable[[], bool], what: str, within_s: float | None = None) -> None:
        """Observe until the condition is true."""
        limit_s = self.scene.settings.drills.timeout_s if within_s is None else within_s
        deadline = Deadline(self.clock, limit_s, _POLL_S)
        while True:
            self.observer.look()
            self._check_abort()
            if condition():
                return
            if not deadline.pause():
                raise UnrecoveredError(f"{what} did not happen in {limit_s:.0f} s")

    def pause(self, seconds: float) -> None:
        """Observe for so long."""
        until_s = self.clock.monotonic_s() + seconds
        self.wait(lambda: self.clock.monotonic_s() >= until_s, "the end of the fault", seconds + 60)

    def wait_until_committed(
        self, tasks: Sequence[TaskId], since_ms: int | None = None, *, acquired: bool
    ) -> None:
        """Observe until each task commits inputs again. A task without new input has only to be live.

        `acquired`: after it was acquired again.
        """
        start_ms = self.injected_ms if since_ms is None else since_ms
        pending = ", ".join(map(short, tasks[:5]))
        self.wait(
            lambda: all(self._committed(task, start_ms, acquired=acquired) for task in tasks),
            f"a commit of each of {counted(len(tasks), 'task')} ({pending})",
        )

    def wait_for_rest(self, workers: int | None = None) -> None:
        """Observe until every task is live, no task moves, and the members are as many as given."""

        def rests() -> bool:
            sample = self.observer.samples[-1]
            alive = len(sample.status.workers)
            return sample.all_live() and (workers is None or alive == workers)

        self.wait(rests, "all tasks live" + (f" on {workers} workers" if workers is not None else ""))

    def lag_before(self, task: TaskId) -> int:
        """The lag that a task may have when it has caught up: that of the steady state, and some records."""
        status = self.scene.sample.of(task)
        return max(_SMALL_LAG, 2 * status.lag if status is not None else 0)

    def measures(self) -> dict[str, float]:
        """The values of abort conditions."""
        sample, now_ms = self.observer.samples[-1], self.clock.wall_ms()
        values: dict[str, float] = {
            "lag": sample.lag,
            "failed_tasks": sample.failed,
            "live_tasks": sample.live,
            "dead_letters": sample.open_letters,
        }
        if self.injected_ms:
            values["elapsed_s"] = (now_ms - self.injected_ms) / 1000
            values["unaffected_pause_s"] = self.unaffected_pause_s(now_ms)
        return values

    def unaffected_pause_s(self, until_ms: int) -> float:
        """The longest time between two commits of a task that the fault should not affect."""
        others = [task for task in self.observer.tasks if task not in self.predicted]
        return max((self.observer.pause_s(task, self.injected_ms, until_ms) for task in others), default=0.0)

    def _committed(self, task: TaskId, since_ms: int, *, acquired: bool) -> bool:
        entries = self.observer.entries(task, since_ms)
        if acquired:
            at = next((n for n, entry in enumerate(entries) if entry.kind is EntryKind.ACQUIRE), None)
            if at is None and not self.observer.has_skipped(task, since_ms):
                return False
            entries = entries[at or 0 :]
        if any(entry.kind is EntryKind.COMMIT for entry in entries):
            return True
        sample = self.observer.samples[-1]
        status = sample.of(task)
        return status is not None and status.lag == 0 and status.phase == "live" and sample.at_ms > since_ms

    def _check_abort(self) -> None:
        if self.intent.asked_to_abort:
            self.fired = "an operator has asked for it: pipeline drill abort"
            raise AbortedError(self.fired)
        values = self.measures()
        for condition in self.conditions:
            if condition.holds(values):
                self.fired = f"{condition} ({values[condition.measure]:g})"
                raise AbortedError(self.fired)


class Drill(ABC):
    """One kind of failure.

    Attributes:
        name: the name in the command line.
        version: raised when the drill does something else under the same name.
        summary: one line for `pipeline drill list`.
        hypothesis: what must be true during and after the fault.
    """

    name: str
    version = 1
    summary: str
    hypothesis: str

    def check(self, scene: Scene) -> Iterator[str]:
        """Yield each precondition that is met. Raises RefusedDrillError for one that is not."""
        yield from ()
        del scene

    @abstractmethod
    def plan(self, scene: Scene) -> Plan:
        """What the drill would do. Changes nothing."""

    @abstractmethod
    def perform(self, run: Run, plan: Plan) -> None:
        """Make the change, and wait for the recovery. The runner then undoes what is left of the change."""


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

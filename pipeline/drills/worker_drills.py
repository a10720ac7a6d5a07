"""Drills on one worker process, kill-worker and freeze-worker, and on its disk, lose-disk and fill-disk.

For fill-disk, the state directory must be on a file system of its own.
"""

from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.journal_format import EntryKind
from pipeline.core.suggestions import counted
from pipeline.drills.containers import ContainerWorker, move_in_volume
from pipeline.drills.drill import Drill, Plan, Run
from pipeline.drills.intent import (
    ContinueContainer,
    ContinueProcess,
    MoveBack,
    MoveBackInVolume,
    RemovePath,
    StartContainer,
    StartWorker,
)
from pipeline.drills.scene import RefusedDrillError, Scene, WorkerTarget
from pipeline.drills.workers import LocalWorker

__all__ = ["FillDisk", "FreezeWorker", "KillWorker", "LoseDisk", "restart_step"]

_EFFECT_S = 10.0
FREEZE_S = 25.0

_PIECE = bytes(1 << 20)


def restart_step(run: Run, worker: WorkerTarget) -> StartWorker | StartContainer:
    """The step that starts a worker as it runs now."""
    if isinstance(worker, ContainerWorker):
        return StartContainer(worker.worker, worker.process)
    log = worker.log if worker.log is not None else _log_of(run, worker.worker)
    return StartWorker(
        worker.worker,
        str(worker.place),
        list(worker.command),
        str(worker.directory),
        worker.environment(),
        str(log),
    )


def continue_step(worker: WorkerTarget) -> ContinueProcess | ContinueContainer:
    """The step that continues a worker which was stopped."""
    if isinstance(worker, ContainerWorker):
        return ContinueContainer(worker.worker, worker.process)
    return ContinueProcess(worker.worker, worker.process)


def _log_of(run: Run, worker: str) -> Path:
    """The log of a worker that the drill starts, and whose own log is not a file."""
    return run.scene.settings.drills.directory.absolute() / f"worker-{worker}.log"


def check_restartable(worker: WorkerTarget) -> str:
    """Return the precondition in words. Raises RefusedDrillError if the driller could not start the worker again."""
    if worker.supervised:
        return f"a supervisor restarts worker {worker.worker}"
    if isinstance(worker, ContainerWorker):
        return f"{worker.process.engine} can start {worker.process.label} of worker {worker.worker} again"
    if not worker.command or not worker.directory.is_dir():
        raise RefusedDrillError(
            "command-unknown",
            f"the command of worker {worker.worker} ({worker.process.label}) is not known",
            hint="start the worker as pipeline worker MODULE:APP",
        )
    return f"the command of worker {worker.worker} is known: {' '.join(worker.command)}"


class KillWorker(Drill):
    """SIGKILL to one worker."""

    name = "kill-worker"
    summary = "kill a worker with SIGKILL; the others take over its tasks"
    hypothesis = (
        "The tasks of a killed worker commit again on another worker or after its restart. "
        "No input is lost or processed twice, and other tasks do not wait."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        yield check_restartable(scene.victim())

    def plan(self, scene: Scene) -> Plan:
        victim = scene.victim()
        tasks = scene.tasks_of(victim.worker)
        restart_s = scene.start_s(victim.worker) + scene.reopen_s(victim.worker)
        if not self._alone(scene, victim):
            restart_s = math.inf  # it is started again only when the others have its tasks
        who, predicted_s = scene.after_kill(victim, tasks, restart_s)
        return Plan(
            f"worker {victim.worker}, {victim.process.label}",
            [f"SIGKILL to {victim.process.label}"],
            f"{counted(len(tasks), 'task')} will stop until {who}",
            tasks,
            predicted_s,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        victim = run.scene.victim()
        restart = restart_step(run, victim)
        if not victim.supervised:
            run.will_undo(restart)
        run.act(f"SIGKILL to worker {victim.worker}, {victim.process.label}")
        victim.process.send(signal.SIGKILL)
        run.wait(lambda: not victim.process.alive, "the end of the process", _EFFECT_S)
        run.proves(f"{victim.process.label} has ended")
        if self._alone(run.scene, victim) and not victim.supervised:
            run.act(f"start worker {victim.worker}", fault=False)
            restart.undo(run.clock)
        run.wait_until_committed(plan.tasks, acquired=True)

    @staticmethod
    def _alone(scene: Scene, victim: WorkerTarget) -> bool:
        """Whether the tasks continue only when the worker is started again."""
        return victim.supervised or not scene.heirs(victim.worker)


class LoseDisk(Drill):
    """SIGKILL to one worker, and its state directory is lost."""

    name = "lose-disk"
    summary = "kill a worker and remove its state directory; it restores from checkpoints and journals"
    hypothesis = (
        "A worker that returns with an empty disk restores its tasks from checkpoints and journals. "
        "No input is lost or processed twice."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        victim = scene.victim()
        yield check_restartable(victim)
        if isinstance(victim, ContainerWorker) and not victim.volume:
            raise RefusedDrillError(
                "no-volume",
                f"{victim.place} of {victim.process.label} is not below a volume",
                hint=f"mount a volume at {victim.place.parent}, or higher",
            )
        if isinstance(victim, LocalWorker) and victim.place.is_mount():
            raise RefusedDrillError(
                "mount-point",
                f"{victim.place} is a mount point, so it cannot be moved away",
                hint=f"mount its file system at {victim.place.parent}, or higher",
            )
        truncated = [
            status.task
            for status in scene.statuses(scene.tasks_of(victim.worker))
            if not status.checkpoint_ms and scene.reader.bounds(status.task.journal).start > 0
        ]
        if truncated:
            raise RefusedDrillError(
                "nothing-to-restore-from",
                f"task {truncated[0]} has no checkpoint, and its journal does not reach back to its beginning",
                hint="pipeline runbook nothing-to-restore-from",
            )
        yield "each task has a checkpoint or a complete journal"

    def plan(self, scene: Scene) -> Plan:
        victim = scene.victim()
        tasks = scene.tasks_of(victim.worker)
        restart_s = scene.start_s(victim.worker) + scene.restore_s(tasks, worker=victim.worker)
        who, predicted_s = scene.after_kill(victim, tasks, restart_s)
        return Plan(
            f"worker {victim.worker}, {victim.process.label}, {victim.place}",
            [
                f"SIGKILL to {victim.process.label}",
                f"move {victim.place} away",
                f"start worker {victim.worker} with an empty state directory",
            ],
            f"{counted(len(tasks), 'task')} will stop until {who}",
            tasks,
            predicted_s,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        victim = run.scene.victim()
        restart = restart_step(run, victim)
        if isinstance(victim, ContainerWorker):
            self._lose_volume(run, victim)
        else:
            self._lose_directory(run, victim)
        run.wait(lambda: not victim.process.alive, "the end of the process", _EFFECT_S)
        run.proves(f"{victim.process.label} has ended, and {victim.place} does not exist")
        if not victim.supervised:
            run.act(f"start worker {victim.worker} with an empty state directory", fault=False)
            restart.undo(run.clock)
        run.wait_until_committed(plan.tasks, acquired=True)

    @staticmethod
    def _lose_volume(run: Run, victim: ContainerWorker) -> None:
        aside = victim.place.with_name(f"{victim.place.name}.drill-{run.clock.wall_ms()}")
        source, target = str(aside), str(victim.place)
        run.will_undo(restart_step(run, victim))
        run.will_undo(MoveBackInVolume(victim.process, victim.image, victim.user, source, target))
        # It is killed first: the engine does not start it again, and cannot kill a paused container.
        run.act(f"SIGKILL to worker {victim.worker}, {victim.process.label}")
        victim.process.send(signal.SIGKILL)
        run.wait(lambda: not victim.process.alive, "the end of the container", _EFFECT_S)
        run.act(f"move {victim.place} in its volume away")
        move_in_volume(victim, victim.place, aside)

    @staticmethod
    def _lose_directory(run: Run, victim: LocalWorker) -> None:
        aside = victim.place.with_name(f"{victim.place.name}.drill-{run.clock.wall_ms()}")
        # Undone in reverse: the directory is back, then the process continues or is started.
        if not victim.supervised:
            run.will_undo(restart_step(run, victim))
        run.will_undo(continue_step(victim))
        run.will_undo(MoveBack(str(aside), str(victim.place)))
        # It is stopped first: a running worker would see its files disappear, and a supervisor could be faster.
        victim.process.send(signal.SIGSTOP)
        run.wait(lambda: victim.process.stopped, "the stop of the process", _EFFECT_S)
        run.act(f"move {victim.place} away, and SIGKILL to worker {victim.worker}, {victim.process.label}")
        victim.place.rename(aside)
        victim.process.send(signal.SIGKILL)


class FreezeWorker(Drill):
    """SIGSTOP to one worker for longer than the session time-out: a zombie."""

    name = "freeze-worker"
    summary = "stop a worker with SIGSTOP until others have its tasks, then continue it (a zombie)"
    hypothesis = (
        "Other workers take over the tasks of a process that hangs. When it continues, it is fenced: "
        "it commits nothing, and gets a share of the tasks again."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        scene.require_heir(scene.victim().worker)
        yield "another worker can take over"

    def plan(self, scene: Scene) -> Plan:
        victim = scene.victim()
        tasks = scene.tasks_of(victim.worker)
        seconds = scene.options.seconds or FREEZE_S
        return Plan(
            f"worker {victim.worker}, {victim.process.label}",
            [
                f"SIGSTOP to {victim.process.label}",
                f"SIGCONT after at least {seconds:.0f} s, when other workers have its tasks",
            ],
            f"{counted(len(tasks), 'task')} will stop until other workers take over",
            tasks,
            scene.detect_s() + scene.restore_s(tasks, workers=len(scene.heirs(victim.worker))),
        )

    def perform(self, run: Run, plan: Plan) -> None:
        victim = run.scene.victim()
        run.will_undo(continue_step(victim))
        run.act(f"SIGSTOP to worker {victim.worker}, {victim.process.label}")
        victim.process.send(signal.SIGSTOP)
        run.wait(lambda: victim.process.stopped, "the stop of the process", _EFFECT_S)
        state = "is paused" if isinstance(victim, ContainerWorker) else "is in state T"
        run.proves(f"{victim.process.label} {state}")
        began_s = run.clock.monotonic_s()
        run.wait_until_committed(plan.tasks, acquired=True)
        run.pause(max(0.0, (run.scene.options.seconds or FREEZE_S) - (run.clock.monotonic_s() - began_s)))
        run.act(f"SIGCONT to worker {victim.worker}, {victim.process.label}", fault=False)
        resumed_ms = run.clock.wall_ms()
        victim.process.send(signal.SIGCONT)
        run.pause(3.0)  # in which it would write, if it was not fenced
        run.wait_for_rest(len(run.scene.sample.status.workers))
        foreign = [
            entry
            for task in plan.tasks
            for entry in run.observer.entries(task, resumed_ms)
            if entry.kind is EntryKind.COMMIT and entry.owner == victim.worker
        ]
        run.proves(
            f"worker {victim.worker} continued, and has committed {counted(len(foreign), 'entry')} since, all as owner"
        )


class FillDisk(Drill):
    """The file system of a worker's state directory becomes full."""

    name = "fill-disk"
    summary = "fill the file system of a worker's state directory, and free it again"
    hypothesis = (
        "Tasks that cannot write their state stop without damage. When there is room again, a restart of the worker "
        "continues after the last commit."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        victim = scene.local_victim()
        yield check_restartable(victim)
        root = victim.place.parent
        if root.stat().st_dev == root.parent.stat().st_dev:
            raise RefusedDrillError(
                "shared-disk",
                f"the state directory {root} is not a file system of its own: the drill would fill another disk, too",
                hint="mount a file system at the state directory of this worker",
            )
        yield f"{root} is a file system of its own"

    def plan(self, scene: Scene) -> Plan:
        victim = scene.local_victim()
        tasks = scene.tasks_of(victim.worker)
        return Plan(
            f"the file system of {victim.place.parent}, worker {victim.worker}",
            ["write a file until the disk is full", "delete it when a task has failed", "restart the worker"],
            f"up to {counted(len(tasks), 'task')} will fail, and their worker may end",
            tasks,
            scene.start_s(victim.worker) + scene.reopen_s(victim.worker),
        )

    def perform(self, run: Run, plan: Plan) -> None:
        victim = run.scene.local_victim()
        restart = restart_step(run, victim)
        filler = victim.place.parent / f".drill-{run.clock.wall_ms()}"
        if not victim.supervised:
            run.will_undo(restart)
        run.will_undo(RemovePath(str(filler)))
        run.act(f"write {filler} until the disk is full")
        _fill(filler)
        free = os.statvfs(victim.place.parent).f_bavail
        run.proves(f"{free} blocks of the file system are free")
        run.wait(
            lambda: not victim.process.alive or run.observer.samples[-1].failed > 0, "the failure of a task"
        )
        run.proves("a task has failed, or the worker has ended")
        run.act(f"delete {filler}", fault=False)
        filler.unlink()
        if not victim.supervised:
            self._restart(run, restart)
        run.wait_until_committed(plan.tasks, acquired=True)

    @staticmethod
    def _restart(run: Run, restart: StartWorker | StartContainer) -> None:
        victim = run.scene.local_victim()
        if victim.process.alive:
            victim.process.send(15)  # type: ignore[arg-type]
            run.wait(lambda: not victim.process.alive, "the end of the worker")
        run.act(f"start worker {victim.worker}", fault=False)
        restart.undo(run.clock)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        size = len(_PIECE)
        while size:
            try:
                file.write(_PIECE[:size])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2

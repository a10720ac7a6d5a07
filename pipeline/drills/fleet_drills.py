"""Drills on the set of workers: rolling-restart, scale-out, scale-in. None of them is a failure."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run
from pipeline.drills.intent import EndProcess, RemovePath, StartWorker
from pipeline.drills.scene import RefusedDrillError, Scene, WorkerTarget
from pipeline.drills.worker_drills import check_restartable, restart_step
from pipeline.drills.workers import command_of, find_workers

__all__ = ["RollingRestart", "ScaleIn", "ScaleOut", "stop_worker"]

_STOP_S = 0.5  # a worker commits its open work and releases its tasks
_RELEASE_S = 0.3  # the same for one task, of a worker that continues
_GRACE_S = 40.0


def stop_worker(run: Run, worker: WorkerTarget) -> int:
    """Send SIGTERM, and wait for the end of the process.

    Returns:
        The time before the signal, in ms since 1970. Other workers may take over the tasks before the process has
        ended: it releases them first.
    """
    began_ms = run.clock.wall_ms()
    run.act(f"SIGTERM to worker {worker.worker}, {worker.process.label}")
    worker.process.send(signal.SIGTERM)
    run.wait(lambda: not worker.process.alive, f"the end of worker {worker.worker}", _GRACE_S)
    run.proves(f"{worker.process.label} of worker {worker.worker} has ended")
    return began_ms


class RollingRestart(Drill):
    """Every local worker is stopped and started, one after the other."""

    name = "rolling-restart"
    summary = "stop and start each worker of this host, one after the other, as a deployment does"
    hypothesis = (
        "Each task commits again soon after its worker has stopped. No input is lost or processed twice."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        scene.victim()
        for worker in scene.workers:
            yield check_restartable(worker)

    def plan(self, scene: Scene) -> Plan:
        tasks = [task for worker in scene.workers for task in scene.tasks_of(worker.worker)]
        return Plan(
            f"{counted(len(scene.workers), 'worker')}: {', '.join(worker.worker for worker in scene.workers)}",
            [f"SIGTERM to worker {worker.worker}, and start it" for worker in scene.workers],
            "the tasks of each worker move or wait for its start",
            tasks,
            max(_STOP_S + scene.start_s(each.worker) + scene.reopen_s(each.worker) for each in scene.workers),
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        count = len(run.scene.sample.status.workers)
        for worker in run.scene.workers:
            restart = restart_step(run, worker)
            if not worker.supervised:
                run.will_undo(restart)
            tasks = [
                status.task
                for status in run.observer.samples[-1].status.tasks
                if status.worker == worker.worker
            ]
            began_ms = run.clock.wall_ms()
            run.struck_ms.update(dict.fromkeys(tasks, began_ms))
            stop_worker(run, worker)
            if not worker.supervised:
                run.act(f"start worker {worker.worker}", fault=False)
                restart.undo(run.clock)
            run.wait_until_committed(tasks, began_ms, acquired=True)
            run.wait(lambda name=worker.name: _joined(run, count, name), "the worker as a member")  # type: ignore[misc]
            run.wait_for_rest(count)


def _joined(run: Run, count: int, without: str) -> bool:
    sample = run.observer.samples[-1]
    return len(sample.status.workers) == count and all(
        each.process != without for each in sample.status.workers
    )


class ScaleIn(Drill):
    """One worker stops for good; then it is started again."""

    name = "scale-in"
    summary = "stop a worker with SIGTERM; the others take over its tasks; then start it again"
    hypothesis = "The tasks of a worker that leaves commit on the others within seconds, without a time-out."

    def check(self, scene: Scene) -> Iterator[str]:
        victim = scene.victim()
        scene.require_heir(victim.worker)
        yield "another worker can take over"
        if victim.supervised:
            raise RefusedDrillError(
                "supervised",
                f"worker {victim.worker} is a process of --processes, whose supervisor starts it again",
                hint="run it on a worker without --processes, or use rolling-restart",
            )
        yield check_restartable(victim)

    def plan(self, scene: Scene) -> Plan:
        victim = scene.victim()
        tasks = scene.tasks_of(victim.worker)
        return Plan(
            f"worker {victim.worker}, {victim.process.label}",
            [f"SIGTERM to {victim.process.label}", "start it again when the others have its tasks"],
            f"{counted(len(tasks), 'task')} will move to other workers, and some will move back",
            tasks,
            _STOP_S + scene.notice_s() + scene.restore_s(tasks, workers=len(scene.heirs(victim.worker))),
        )

    def perform(self, run: Run, plan: Plan) -> None:
        victim = run.scene.victim()
        run.will_undo(restart_step(run, victim))
        stop_worker(run, victim)
        run.wait_until_committed(plan.tasks, acquired=True)
        run.wait_for_rest(len(run.scene.sample.status.workers) - 1)


class ScaleOut(Drill):
    """One more worker joins; then it is stopped."""

    name = "scale-out"
    summary = "start one more worker; it gets a share of the tasks; then stop it"
    hypothesis = "A worker that joins gets its share by planned handoffs. No task waits for a time-out."

    def check(self, scene: Scene) -> Iterator[str]:
        worker = scene.local_victim()
        if worker.supervised:
            raise RefusedDrillError(
                "supervised",
                f"worker {worker.worker} is a process of --processes, and its command cannot be copied",
                hint="run it beside a worker without --processes",
            )
        yield check_restartable(worker)

    def plan(self, scene: Scene) -> Plan:
        worker = scene.local_victim()
        tasks = [status.task for status in scene.sample.status.tasks]
        moved = len(tasks) // (len(scene.sample.status.workers) + 1)
        return Plan(
            f"worker {worker.worker}-drill, with the command of worker {worker.worker}",
            [f"start worker {worker.worker}-drill", "stop it when it has its share"],
            f"about {counted(moved, 'task')} {'moves' if moved == 1 else 'move'} to it, and back",
            tasks,
            # The newcomer copies its share while the owners process, and then takes over what has been released.
            scene.start_s(worker.worker)
            + scene.notice_s()
            + scene.copy_s(tasks, workers=len(scene.sample.status.workers) + 1)
            + _RELEASE_S
            + scene.reopen_s(worker.worker),
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        model = run.scene.local_victim()
        name = f"{model.worker}-drill"
        directory = run.scene.settings.drills.directory.absolute()
        state = directory / f"state-{run.clock.wall_ms()}"
        log = directory / f"worker-{name}.log"
        place = state / run.scene.app
        run.will_undo(RemovePath(str(state)))
        run.will_undo(EndProcess(name, str(place)))
        run.act(f"start worker {name}")
        command = command_of(model, worker_id=name, state_dir=state)
        started_ms = run.clock.wall_ms()
        StartWorker(name, str(place), command, str(model.directory), model.environment(), str(log)).undo(
            run.clock
        )
        count = len(run.scene.sample.status.workers)
        run.wait(lambda: self._share(run, name) > 0, f"a task of worker {name}")
        run.wait_for_rest(count + 1)
        moved = [status.task for status in run.observer.samples[-1].status.tasks if status.worker == name]
        run.proves(f"worker {name} runs {counted(len(moved), 'task')}")
        run.wait_until_committed(moved, started_ms, acquired=True)
        joined = [
            each
            for each in find_workers(run.scene.app, run.observer.samples[-1].members)
            if each.worker == name
        ]
        stopped_ms = stop_worker(run, joined[0])
        run.wait_until_committed(moved, stopped_ms, acquired=True)
        run.wait_for_rest(count)

    @staticmethod
    def _share(run: Run, worker: str) -> int:
        return sum(status.worker == worker for status in run.observer.samples[-1].status.tasks)

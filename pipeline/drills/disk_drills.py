"""A drill on the disk of a worker: fill-disk. The state directory must be on a file system of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.drills.drill import Drill, Plan, RefusedDrillError, Run, Scene
from pipeline.drills.intent import RemovePath, StartContainer, StartWorker
from pipeline.drills.worker_drills import check_restartable, restart_step

__all__ = ["FillDisk"]

_PIECE = bytes(1 << 20)


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
            f"some of {len(tasks)} tasks fail, and their worker may end",
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

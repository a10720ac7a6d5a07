"""Drills on the checkpoint store, if it is a directory: store-down and damage-checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.core.names import TaskId
from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run
from pipeline.drills.intent import MoveBack, RestoreFile
from pipeline.drills.scene import RefusedDrillError, Scene
from pipeline.drills.worker_drills import LoseDisk
from pipeline.errors import PipelineError
from pipeline.ops.checkpoints import Holding, Inventory, inventory_of, verify

__all__ = ["DamageCheckpoint", "StoreDown"]

DOWN_S = 20.0
_URL = "PIPELINE_CHECKPOINT_STORE"
_VALID = 3  # the newest is damaged, and two others must be valid


def store_directory(scene: Scene) -> Path:
    """The directory of the checkpoint store. Raises RefusedDrillError if the store is not a directory of this host."""
    url = scene.settings.worker.checkpoint_store
    if not url:
        raise RefusedDrillError(
            "no-store",
            f"app {scene.app} has no checkpoint store in the settings of this command",
            hint=f"set worker.checkpoint_store, or {_URL}, to the store of the workers",
        )
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise RefusedDrillError(
            "store-not-local",
            f"the checkpoint store {url} is not a directory of this host",
            hint="rehearse the outage of an object store by its access policy, and watch pipeline status",
        )
    root = Path(unquote(parts.path))
    if not root.is_dir():
        raise RefusedDrillError(
            "store-not-found",
            f"the checkpoint store {root} does not exist on this host",
            hint="run the drill on a host of the workers",
        )
    return root


class StoreDown(Drill):
    """The directory of the checkpoint store disappears for some time."""

    name = "store-down"
    summary = f"make the checkpoint store unavailable for {DOWN_S:.0f} s (--seconds)"
    hypothesis = (
        "Tasks commit without a pause while the store is unavailable. Afterwards they make checkpoints again."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        root = store_directory(scene)
        yield f"the checkpoint store is the directory {root}"
        if root.is_mount() or not os.access(root.parent, os.W_OK):
            raise RefusedDrillError(
                "store-not-movable",
                f"the checkpoint store {root} is a mount point, or {root.parent} is not writable for this user, so it "
                "cannot be moved away",
                hint="use a directory below the mount point as the store",
            )
        used = sum(1 for status in scene.sample.status.tasks if status.checkpoint_ms)
        if not used:
            raise RefusedDrillError(
                "no-checkpoint",
                f"no task of app {scene.app} has a checkpoint, so the drill could not tell whether the store is in use",
                hint="wait for worker.checkpoint_interval_s, and look at pipeline status",
            )
        yield f"there are checkpoints of {counted(used, 'task')}"

    def plan(self, scene: Scene) -> Plan:
        root = store_directory(scene)
        seconds = scene.options.seconds or DOWN_S
        return Plan(
            f"the checkpoint store {root}",
            [f"move {root} away, and put a file in its place", f"move it back after {seconds:.0f} s"],
            "no checkpoint is made; tasks continue",
            [],
            0.0,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        root = store_directory(run.scene)
        aside = root.with_name(f"{root.name}.drill-{run.clock.wall_ms()}")
        move = MoveBack(str(aside), str(root))
        run.will_undo(move)
        run.act(f"move {root} away, and put a file in its place")
        root.rename(aside)
        root.touch()  # a worker would otherwise create the directory again
        run.proves(f"{root} is not a directory")
        run.pause(run.scene.options.seconds or DOWN_S)
        run.act(f"move {root} back", fault=False)
        move.undo(run.clock)
        since_ms = run.clock.wall_ms()
        run.wait(lambda: _newest_checkpoint_ms(run) > since_ms, "a new checkpoint")
        run.proves("a checkpoint was made after the store was available again")


def _newest_checkpoint_ms(run: Run) -> int:
    return max((status.checkpoint_ms for status in run.observer.samples[-1].status.tasks), default=0)


@dataclass(frozen=True, slots=True)
class _Target:
    """The object to damage: of the newest checkpoint of a task, and of no other one."""

    task: TaskId
    seq: int
    path: Path


class DamageCheckpoint(LoseDisk):
    """One bit of the newest checkpoint of a task flips; then the task's worker loses its disk."""

    name = "damage-checkpoint"
    summary = "damage the newest checkpoint of a task, and let its worker restore on an empty disk"
    hypothesis = (
        "A damaged checkpoint is detected, and the restore uses an older one. "
        "No input is lost or processed twice."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        yield from super().check(scene)
        target = self._target(scene)
        yield f"task {target.task} has two other valid checkpoints, and {target.path} belongs only to the newest"

    def plan(self, scene: Scene) -> Plan:
        lost = super().plan(scene)
        target = self._target(scene)
        return Plan(
            f"{target.path} of task {target.task}; {lost.target}",
            [f"copy {target.path} to {scene.settings.drills.directory}", "flip one bit of it", *lost.actions],
            f"{lost.effect}; task {target.task} from an older checkpoint",
            lost.tasks,
            lost.predicted_s,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        target = self._target(run.scene)
        backup = run.scene.settings.drills.directory.absolute() / f"backup-{run.clock.wall_ms()}"
        content = target.path.read_bytes()
        backup.write_bytes(content)
        run.will_undo(RestoreFile(str(backup), str(target.path)))
        run.act(f"flip one bit of {target.path}")
        middle = len(content) // 2
        damaged = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        target.path.write_bytes(damaged)
        run.proves(f"checkpoint {target.seq} of task {target.task} fails its checks")
        super().perform(run, plan)

    def _target(self, scene: Scene) -> _Target:
        root = store_directory(scene)
        victim = scene.victim()
        wanted = scene.options.task
        for task in scene.tasks_of(victim.worker):
            if wanted is None or wanted.means(task):
                found = self._object(scene, task, root)
                if found is not None:
                    return found
        raise RefusedDrillError(
            "too-few-checkpoints",
            f"no task of worker {victim.worker} has {_VALID} valid checkpoints, and an object of only the newest",
            hint=f"wait until pipeline checkpoints list {scene.app} shows three for a task",
        )

    @staticmethod
    def _object(scene: Scene, task: TaskId, root: Path) -> _Target | None:
        if scene.store is None:
            return None
        with suppress(PipelineError):
            found = inventory_of(task, scene.cluster.cluster_id(), scene.reader, scene.store, 0, 0.0)
            checked = verify(found, scene.store, lambda _: None)
            valid = [holding for holding in checked.holdings if holding.problem is None]
            if len(valid) >= _VALID and valid[0] is checked.holdings[0]:
                return _only_in_newest(checked, valid, root)
        return None


def _only_in_newest(found: Inventory, valid: list[Holding], root: Path) -> _Target | None:
    newest, *older = (holding.manifest for holding in valid)
    if newest is None:
        return None
    shared = {name for manifest in older if manifest is not None for name in manifest.objects}
    own = {name: size for name, size in newest.objects.items() if name not in shared and size}
    if not own:
        return None
    largest = max(own, key=lambda name: own[name])
    return _Target(found.task, valid[0].ref.seq, root / (found.prefix + largest))

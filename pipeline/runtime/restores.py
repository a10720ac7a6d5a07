"""Begins restores beside the processing thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, TopicPartition, is_replays
from pipeline.ports import Pending, Store
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.restore import Restored, restore
from pipeline.runtime.world import World

__all__ = ["Asked", "begin_restore"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to restore, and what comes first.

    `wait_s`: a pause. `damage`: why the state on disk is to be set aside. `copy_of`: gives the followed copy to start
    from. `closing`: what still closes the task as it was here before.
    """

    plan: GroupPlan
    task: TaskId
    process: str
    wait_s: float = 0.0
    damage: str | None = None
    copy_of: Callable[[], Store | None] | None = None
    closing: Pending[None] | None = None


def begin_restore(asked: Asked, world: World, settings: WorkerSettings) -> Pending[Restored]:
    """The restore under way."""
    task, plan = asked.task, asked.plan

    def start_position(topic: str) -> int:
        # Not from the source: it is being polled, and answers on the processing thread only between polls.
        reader = world.journals()
        try:
            bounds = reader.bounds(TopicPartition(topic, task.partition))
        finally:
            reader.close()
        # Whatever is replayed was asked for.
        whole = settings.start == "earliest" or is_replays(topic)
        return bounds.start if whole else bounds.stable_end

    def step() -> Restored:
        if asked.wait_s:
            world.clock.sleep(asked.wait_s)
        if asked.closing is not None:
            asked.closing.result()
        if asked.damage is not None:
            place = world.stores.set_aside(task)
            world.log.warning("local_state_set_aside", task=str(task), reason=asked.damage, kept_at=place)
        return restore(
            task,
            settings.worker_id,
            plan.identity,
            start_position,
            world,
            settings,
            plan.group.tables,
            process=asked.process,
            copy=asked.copy_of() if asked.copy_of is not None else None,
        )

    return world.executor.submit(step)

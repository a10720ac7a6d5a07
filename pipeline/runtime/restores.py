"""What a restore does, and what comes before it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from pipeline.config import WorkerSettings
from pipeline.core.names import TopicPartition, is_replays
from pipeline.runtime.environment import Environment
from pipeline.runtime.live_task import RestoreRequest
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.restore.restore import RestoredState, restore

__all__ = ["restore_step"]


def restore_step(
    plan: GroupPlan, asked: RestoreRequest, environment: Environment, settings: WorkerSettings
) -> Callable[[], RestoredState]:
    """The restore, for the executor."""
    task = asked.task

    def start_position(topic: str) -> int:
        # Not from the source: it is being polled, and answers on the processing thread only between polls.
        place = TopicPartition(topic, task.partition)
        with closing(environment.journals()) as reader:
            # Whatever is replayed was asked for.
            if settings.start == "earliest" or is_replays(topic):
                return reader.bounds(place).start
            return reader.highest_ends([place])[place]

    def step() -> RestoredState:
        if asked.wait_s:
            environment.clock.sleep(asked.wait_s)
        if asked.closing is not None:
            asked.closing.result()
        if asked.damage is not None:
            place = environment.stores.set_aside(task)
            environment.log.warning(
                "local_state_set_aside", task=str(task), reason=asked.damage, kept_at=place
            )
        return restore(
            task,
            settings.worker_id,
            plan.identity,
            start_position,
            environment,
            settings,
            plan.group.tables,
            process=asked.process,
            copy=asked.copy_of() if asked.copy_of is not None else None,
        )

    return step

"""Reset of a sink task: only its positions. The user's tables are not changed.

One transaction raises the epoch, which fences the task's owner, and sets the positions. It creates missing rows of
positions, so a reset is also the way to start again after they were lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.core.names import TaskId
from pipeline.core.sink_positions import PositionRow, next_epoch
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.sinks.backend import inputs_now, rows_of, sessions_of

__all__ = ["read_positions", "reset_positions"]


def read_positions(plan: GroupPlan, environment: Environment) -> dict[TaskId, dict[str, PositionRow]]:
    """The rows of each task, by topic. Raises SinkUnreachableError, ConfigError."""
    sessions = sessions_of(plan, environment)
    try:
        with sessions.one() as session:
            session.prepare()
            rows = rows_of(plan, session)
    finally:
        sessions.close()
    return {task: {row.topic: row for row in rows if row.partition == task.partition} for task in plan.tasks}


def reset_positions(
    task: TaskId, plan: GroupPlan, positions: Mapping[str, int], environment: Environment
) -> int:
    """Reset the task.

    Returns the new epoch. Raises SinkUnreachableError, RetriableError, UnknownOutcomeError: retry.
    """
    sessions, inputs = sessions_of(plan, environment), inputs_now(plan)
    try:
        with sessions.one() as session:
            session.begin()
            epoch = next_epoch(session.lock(task), 0)
            rows = [
                PositionRow(topic, task.partition, position, epoch, "", "", *inputs[topic])
                for topic, position in positions.items()
            ]
            session.put(task.group_id, rows, keep=False)
            session.commit()
    finally:
        sessions.close()
    return epoch

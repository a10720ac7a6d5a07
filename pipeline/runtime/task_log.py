"""The log of a worker, which adds the partitions of a task to each event that names one: `TaskLog`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.core.names import GroupId, TaskId
from pipeline.ports import Logger, task_fields
from pipeline.runtime.plan import GroupPlan

__all__ = ["TaskLog"]


class TaskLog:
    """`ports.Logger`. The code that logs knows a task by its number; only the plan of its group has its partitions."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._plans: dict[GroupId, GroupPlan] = {}

    def plan(self, plans: Iterable[GroupPlan]) -> None:
        """The groups whose tasks are logged from now on."""
        self._plans = {plan.id: plan for plan in plans}

    def info(self, event: str, **fields: Any) -> Any:
        return self._logger.info(event, **self._complete(fields))

    def warning(self, event: str, **fields: Any) -> Any:
        return self._logger.warning(event, **self._complete(fields))

    def error(self, event: str, **fields: Any) -> Any:
        return self._logger.error(event, **self._complete(fields))

    def _complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        number = fields.get("task")
        if not isinstance(number, int) or "partitions" in fields:
            return fields
        plan = self._plans.get(GroupId(fields.get("app", ""), fields.get("group", "")))
        if plan is None:
            return fields
        return fields | task_fields(TaskId(*plan.id, number), plan.numbers_of(number))

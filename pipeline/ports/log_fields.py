"""The fields that many log events share.

Every event names a task, a record or an error by the same fields. So one query finds all events of a task.
"""

from __future__ import annotations

from typing import Any

from pipeline.core.names import TaskId
from pipeline.core.records import Record
from pipeline.errors import PipelineError

__all__ = ["error_fields", "record_fields", "task_fields"]


def task_fields(task: TaskId) -> dict[str, Any]:
    """The fields that name a task: `app`, `group`, `task` (a number) and `partitions` (a list).

    Example:
        >>> task_fields(TaskId("shop", "main", 3))
        {'app': 'shop', 'group': 'main', 'task': 3, 'partitions': [3]}
    """
    return {"app": task.app, "group": task.group, "task": task.partition, "partitions": [task.partition]}


def record_fields(record: Record) -> dict[str, Any]:
    """The fields that name a record: `topic`, `partition` and `offset`."""
    return {"topic": record.topic(), "partition": record.partition(), "offset": record.offset()}


def error_fields(error: PipelineError, *, hint: str | None = None) -> dict[str, Any]:
    """The fields that describe an error: `error` (its class), `message`, and `hint` if there is a next step.

    Args:
        error: The error.
        hint: The next step, if it differs from that of the error.
    """
    fields: dict[str, Any] = {"error": type(error).__name__, "message": error.message}
    advice = hint or error.hint
    if advice:
        fields["hint"] = advice
    return fields

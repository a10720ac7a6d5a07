"""Check of the number of tasks of each group, by the rules of a worker's start: `check_tasks`."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.api.app import DeclaredApp
from pipeline.core.suggestions import counted
from pipeline.doctor.findings import Finding, ok, problem
from pipeline.errors import ConfigError
from pipeline.runtime.environment import Environment
from pipeline.runtime.task_count import task_count_of

__all__ = ["check_tasks"]

_CHECK = "tasks"


def check_tasks(app: DeclaredApp, environment: Environment) -> Iterator[Finding]:
    """A worker can start each group with the declared number of tasks. Missing inputs are findings of topics."""
    topics = environment.cluster.describe([topic.name for group in app.groups for topic in group.inputs])
    for group in app.groups:
        counts = {topics[topic.name].partitions for topic in group.inputs if topic.name in topics}
        if len(counts) != 1:
            continue
        try:
            tasks = task_count_of(group, counts.pop(), environment)
        except ConfigError as error:
            yield problem(_CHECK, error.message, error.hint or "declare another number of tasks")
        else:
            yield ok(_CHECK, f"group {group.name} has {counted(tasks, 'task')}")

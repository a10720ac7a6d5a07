"""Finds the app and the tasks that an argument names, for commands that read only Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.lookup import find_app
from pipeline.core.names import GroupId, TaskId, check_name
from pipeline.errors import ConfigError, InputError
from pipeline.ports import Cluster

__all__ = ["AppArgument", "TaskOption", "app_named", "journaled_tasks"]

AppArgument = Annotated[
    str, typer.Argument(metavar="APP", help="The app: its name, or MODULE:APP as for pipeline worker.")
]
TaskOption = Annotated[
    int | None,
    typer.Option("--task", metavar="N", help="Only the task with this number. Default: all.", min=0),
]


def app_named(given: str) -> str:
    """Return the name of the app. An argument with a colon is MODULE:APP, because names have no colon.

    Raises:
        ConfigError: The argument is not a valid name, or the module cannot be imported.
    """
    if ":" not in given:
        return check_name("app", given)
    try:
        return find_app(given).name
    except ConfigError as error:
        instead = "or give the app's name: this command does not need its code"
        raise ConfigError(
            error.message, hint=f"{error.hint}; {instead}" if error.hint else instead
        ) from error


def journaled_tasks(cluster: Cluster, group_id: GroupId, number: int | None) -> list[TaskId]:
    """Return the tasks of a group, or the one with `number`, according to the group's journal.

    Raises:
        InputError: There is no such journal or task.
        UnreachableError: Kafka does not answer.
    """
    topic = cluster.describe([group_id.journal_topic]).get(group_id.journal_topic)
    if topic is None and cluster.committed(group_id.consumer_group):
        raise InputError(
            f"group {group_id.app}/{group_id.group} has no journal and no checkpoints",
            hint="a group of sinks keeps its positions in its database (SELECT * FROM pipeline_positions), and "
            "pipeline status shows its tasks. For a group of handlers: runbooks/journal-lost.md",
        )
    if topic is None:
        raise InputError(
            f"this Kafka cluster has no journal {group_id.journal_topic}",
            hint="check the app's name, which is the one in App(...), and the group (--group)",
        )
    if number is not None and not 0 <= number < topic.partitions:
        raise InputError(
            f"group {group_id.app}/{group_id.group} has no task {number}",
            hint=f"its tasks are 0 to {topic.partitions - 1}, one for each partition of its inputs",
        )
    numbers = range(topic.partitions) if number is None else [number]
    return [TaskId(group_id.app, group_id.group, each) for each in numbers]

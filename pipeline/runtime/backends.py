"""What a worker makes at its start: each group's plan, checked against the cluster, and its backend.

`Resources` makes the resources of handlers, such as clients, at their first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pipeline.api.app import DeclaredApp
from pipeline.api.context import Sender
from pipeline.api.declarations import DeclaredResource, DeclaredTopic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.config import WorkerSettings
from pipeline.runtime.calls.call_loop import CallLoop
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.created_topics import create_new_topics
from pipeline.runtime.dead_letter_topics import create_dead_letter_topics
from pipeline.runtime.environment import Environment
from pipeline.runtime.journal_backend import JournalBackend
from pipeline.runtime.live_task import TaskBackend
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.runtime.sinks.backend import SinkBackend
from pipeline.runtime.task.cache import CacheBudget

__all__ = ["Resources", "plan_backends"]


def plan_backends(
    app: DeclaredApp,
    groups: Sequence[DeclaredGroup],
    resources: Callable[[DeclaredResource[Any]], Any],
    environment: Environment,
    settings: WorkerSettings,
    commit_rate: CommitRate,
    caches: CacheBudget,
    calls: CallLoop,
) -> list[tuple[GroupPlan, TaskBackend]]:
    """Plan each group and make its backend, which is not started yet. Dead-letter and replays topics are created.

    Raises ConfigError, FatalTaskError, UnreachableError.
    """
    plans, senders = _planned(app, groups, environment, settings.replication_factor)
    return [
        (
            plan,
            SinkBackend(plan, environment, settings, commit_rate)
            if plan.group.sinks
            else JournalBackend(plan, senders, resources, environment, settings, commit_rate, caches, calls),
        )
        for plan in plans
    ]


def _planned(
    app: DeclaredApp, groups: Sequence[DeclaredGroup], environment: Environment, replication: int
) -> tuple[list[GroupPlan], Mapping[DeclaredTopic[Any, Any], Sender]]:
    create_new_topics(app, environment)
    plans, senders = plan_groups(app, groups, environment)
    lacking = [plan for plan in plans if plan.lacks_letter_topics]
    for plan in lacking:
        create_dead_letter_topics(plan.id, plan.partitions, plan.largest_input, replication, environment)
    return plan_groups(app, groups, environment) if lacking else (plans, senders)


class Resources:
    """The resources of one worker. Processing thread only."""

    def __init__(self) -> None:
        self._made: dict[DeclaredResource[Any], Any] = {}

    def get(self, resource: DeclaredResource[Any]) -> Any:
        """This worker's instance. Raises what its factory raises."""
        if resource not in self._made:
            self._made[resource] = resource.factory()
        return self._made[resource]

    def close(self, finish: Callable[[Awaitable[Any]], None] | None = None) -> None:
        """Close the resources that have a method `aclose` or `close`. `finish`: awaits what it returns."""
        for made in self._made.values():
            close = getattr(made, "aclose", None) if finish is not None else None
            close = close or getattr(made, "close", None)
            if not callable(close):
                continue
            result = close()
            if finish is not None and inspect.isawaitable(result):
                finish(result)
        self._made.clear()

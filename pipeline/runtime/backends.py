"""What a worker begins with: each group's plan, checked against the cluster, and who says where its tasks stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.api.app import App
from pipeline.api.context import Sender
from pipeline.api.declarations import Resource, Topic
from pipeline.api.group import Group
from pipeline.config import WorkerSettings
from pipeline.runtime.commit.commit_rate import CommitPace
from pipeline.runtime.dead_letter_topics import create_letter_topics
from pipeline.runtime.environment import World
from pipeline.runtime.journal_backend import JournalAuthority
from pipeline.runtime.live_task import Authority
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.runtime.sinks.backend import SinkAuthority

__all__ = ["plan_authorities"]


def plan_authorities(
    app: App,
    groups: Sequence[Group],
    resources: Callable[[Resource[Any]], Any],
    world: World,
    settings: WorkerSettings,
    pace: CommitPace,
) -> list[tuple[GroupPlan, Authority]]:
    """Each group's plan with its authority, not begun yet; topics of dead letters and replays are created.

    Raises ConfigError, FatalTaskError, UnreachableError.
    """
    plans, senders = _planned(app, groups, world, settings.replication_factor)
    return [
        (
            plan,
            SinkAuthority(plan, world, settings, pace)
            if plan.group.sinks
            else JournalAuthority(plan, senders, resources, world, settings, pace),
        )
        for plan in plans
    ]


def _planned(
    app: App, groups: Sequence[Group], world: World, replication: int
) -> tuple[list[GroupPlan], Mapping[Topic[Any, Any], Sender]]:
    plans, senders = plan_groups(app, groups, world)
    lacking = [plan for plan in plans if plan.lacks_letter_topics]
    for plan in lacking:
        create_letter_topics(plan.id, plan.partitions, plan.largest_input, replication, world)
    return plan_groups(app, groups, world) if lacking else (plans, senders)

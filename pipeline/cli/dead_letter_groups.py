"""Finds the group whose dead letters a command uses: `open_dead_letters`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pipeline.api.app import DeclaredApp
from pipeline.api.group import DeclaredGroup
from pipeline.cli.lookup import find_app, find_group
from pipeline.cli.options import CommandWait
from pipeline.config import Settings, load_settings
from pipeline.errors import InputError
from pipeline.ops.dead_letters.letters import LetterId, dead_letter_topic
from pipeline.ops.dead_letters.marks import ReplayMark, read_marks
from pipeline.ports import TopicInfo
from pipeline.processes.wiring import build_environment
from pipeline.runtime.dead_letter_topics import dead_letter_topics
from pipeline.runtime.environment import Environment

__all__ = ["DeadLetterGroup", "open_dead_letters"]


class DeadLetterGroup(NamedTuple):
    """A group with dead letters, and what is needed to read them."""

    app: DeclaredApp
    group: DeclaredGroup
    topic: TopicInfo
    environment: Environment
    settings: Settings

    @property
    def marks(self) -> dict[LetterId, ReplayMark]:
        return read_marks(self.group.id, self.topic.topic_id, self.environment)


@contextmanager
def open_dead_letters(target: str, group: str | None, kafka: str | None) -> Iterator[DeadLetterGroup]:
    """Open the clients for the dead letters of a group, and close them afterwards.

    Raises:
        ConfigError: The app cannot be loaded.
        InputError: There is no such group, or it has no dead letters.
        UnreachableError: Kafka does not answer.
    """
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    try:
        chosen = _group(app, group, environment)
        yield DeadLetterGroup(
            app, chosen, dead_letter_topic(chosen.id, environment.cluster), environment, settings
        )
    finally:
        environment.executor.close()
        environment.cluster.close()


def _group(app: DeclaredApp, name: str | None, environment: Environment) -> DeclaredGroup:
    """The group with this name, or the only group with dead letters."""
    groups = app.groups
    if name is not None:
        return find_group(app, groups, name)
    known = ", ".join(group.name for group in groups) or "none"
    there = dead_letter_topics(groups, environment.cluster)
    found = [group for group in groups if group.id.dead_letter_topic in there]
    if not found:
        raise InputError(
            f"app {app.name} has no dead letters: none of its groups ({known}) has a dead-letter topic",
            hint="a worker creates the topic if a handler has on_error='dead_letter'",
        )
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise InputError(
            f"several groups of app {app.name} have dead letters: {names}", hint="choose one with --group"
        )
    return found[0]

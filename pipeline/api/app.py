"""What an App consists of: topics, groups and resources. Declarations only; nothing runs.

Every name given here is part of a durable name, so none is ever inferred. A mistake raises ConfigError when
it is declared, not when the first record arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, TypeVar

from pipeline.api.codecs import resolve_value
from pipeline.api.declarations import DeclaredResource, DeclaredTopic, Dedup, Topic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.keys import resolve_key
from pipeline.core.names import check_name, held_by_the_pipeline
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError

__all__ = ["DeclaredApp", "NewTopic"]

R = TypeVar("R")

MAIN_GROUP = "main"
_TOPIC_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class NewTopic(NamedTuple):
    """A topic that a worker creates at its start. `replicas` 0 means min(3, number of brokers).

    `like`: a topic that it gets as many partitions as, instead of `partitions`, if that exists or is created.
    """

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]
    like: str = ""


class DeclaredApp:
    """The declarations behind an `App`, which has one.

    `replaces`: the consumer group of the program that the app was before, if it was one of another library.
    """

    replaces = ""

    def __init__(self, name: str, tasks: int | None = None) -> None:
        self.name = check_name("app", name)
        self.topics: dict[str, DeclaredTopic[Any, Any]] = {}
        self.main = DeclaredGroup(self, MAIN_GROUP, tasks=tasks)
        self._groups = {MAIN_GROUP: self.main}

    @property
    def groups(self) -> list[DeclaredGroup]:
        """Groups that have handlers or sinks, `main` first."""
        return [group for group in self._groups.values() if group.bindings or group.sinks]

    def declared(self, given: Any) -> Any:
        """What was declared for an object that users hold: the object itself, unless the app is another library's."""
        return given

    def new_topics(self, existing: Collection[str]) -> Sequence[NewTopic]:  # noqa: ARG002 - of other libraries' apps
        """The topics that a worker creates if they do not exist. The topics of an `App` are created by its users."""
        return ()

    def owns(self, topic: Topic[Any, Any]) -> bool:
        """Whether the topic was declared in this app."""
        return self.topics.get(topic.name) is topic

    def topic(
        self, name: str, key: Any, value: Any, codec: Any = None, dedup: Any = None, event_time_ms: Any = None
    ) -> DeclaredTopic[Any, Any]:
        """Declare a topic: `App.topic`."""
        where = f"topic {name}"
        if not name or len(name) > 249 or name in {".", ".."} or set(name) - _TOPIC_LETTERS:
            raise ConfigError(f"{where}: not a topic name Kafka accepts (letters, digits, '.', '_' and '-')")
        held = held_by_the_pipeline(name)
        if held:
            raise ConfigError(f"{where} {held}", hint="declare a topic of your own")
        if name in self.topics:
            raise ConfigError(f"{where} is declared twice")
        if event_time_ms is not None and not callable(event_time_ms):
            raise ConfigError(
                f"{where}: event_time_ms is {event_time_ms!r}; it must be a function of the event"
            )
        topic: DeclaredTopic[Any, Any] = DeclaredTopic(
            name,
            resolve_key(key, where, tombstones=True),
            resolve_value(value, codec, where, tombstones=True),
            self._checked(dedup, where),
            key_type=key,
            value_type=value,
            event_time_ms=event_time_ms,
        )
        self.topics[name] = topic
        return topic

    def _checked(self, dedup: Any, where: str) -> Dedup[Any, Any] | None:
        if dedup is None:
            return None
        if not isinstance(dedup, Dedup):
            raise ConfigError(
                f"{where}: dedup is {dedup!r}; it must be a Dedup", hint="dedup=Dedup(ttl_s=...)"
            )
        target = dedup.duplicates_to
        if target is not None and not self.owns(target):
            raise ConfigError(f"{where}: duplicates_to is topic {target.name} of another app")
        return dedup

    def group(self, name: str, tasks: int | None = None) -> DeclaredGroup:
        """Declare another group: `App.group`."""
        if name in self._groups:
            raise ConfigError(f"group {name} is declared twice")
        group = self._groups[name] = DeclaredGroup(self, name, tasks=tasks)
        return group

    def with_tasks(self, tasks: int) -> DeclaredApp:
        """The same app, with this number of tasks in each group."""
        changed = copy(self)
        groups = {name: group.with_tasks(tasks) for name, group in self._groups.items()}
        changed.main, changed._groups = groups[MAIN_GROUP], groups  # noqa: SLF001 - of this class
        return changed

    def only(self, names: Collection[str]) -> DeclaredApp:
        """The same app with these of its groups; all if there are no names. Raises ConfigError."""
        if not names:
            return self
        able = [group.name for group in self.groups]
        for name in names:
            if name not in able:
                raise ConfigError(
                    f"app {self.name} has no group {name!r} with handlers or sinks{did_you_mean(name, able)}",
                    hint=f"its groups: {', '.join(able) or 'none'}",
                )
        changed = copy(self)
        changed._groups = {name: group for name, group in self._groups.items() if name in names}  # noqa: SLF001
        return changed

    def resource(self, factory: Callable[[], R]) -> DeclaredResource[R]:
        """Declare a resource: `App.resource`."""
        if not callable(factory):
            raise ConfigError(
                f"app.resource takes a function that makes the resource, not {factory!r}",
                hint="app.resource(lambda: Pool(...)): each worker creates its own at the first use",
            )
        return DeclaredResource(factory)

"""What the user declares: an App with topics, tables, handlers and resources. Declarations only; nothing runs.

Every name given here is part of a durable name, so none is ever inferred. A mistake raises ConfigError when
it is declared, not when the first record arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from typing_extensions import TypeForm

from pipeline.api.codecs import CodecName, resolve_value
from pipeline.api.custom_codecs import Codec, MessageCodec
from pipeline.api.declarations import Dedup, Resource, Topic
from pipeline.api.group import Group
from pipeline.api.keys import resolve_key
from pipeline.core.names import check_name, held_by_the_pipeline
from pipeline.errors import ConfigError

__all__ = ["App"]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

MAIN_GROUP = "main"
_TOPIC_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class App(Group):
    """A stream-processing application; it is itself the handler group `main`."""

    def __init__(self, name: str) -> None:
        self.app_name = check_name("app", name)
        self.topics: dict[str, Topic[Any, Any]] = {}
        self._groups: dict[str, Group] = {}
        super().__init__(self, MAIN_GROUP)

    @overload
    def topic(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[K, V] | None = None,
    ) -> Topic[K, V]: ...

    @overload
    def topic(
        self,
        name: str,
        *,
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[None, V] | None = None,
    ) -> Topic[None, V]: ...

    def topic(
        self, name: str, *, key: Any = None, value: Any, codec: Any = None, dedup: Any = None
    ) -> Topic[Any, Any]:
        """Declare a topic. Without `key` its records have none, and any that arrives is ignored.

        codec: how values become bytes: `json` (default), `msgpack`, `raw` (bytes, whose default it is), or an object
        with `encode(value)` and `decode(data)` or `decode(data, message)`.
        dedup: handlers of the topic get each event once, though it was sent several times; see `Dedup`.
        """
        where = f"topic {name}"
        if not name or len(name) > 249 or name in {".", ".."} or set(name) - _TOPIC_LETTERS:
            raise ConfigError(f"{where}: not a topic name Kafka accepts (letters, digits, '.', '_' and '-')")
        held = held_by_the_pipeline(name)
        if held:
            raise ConfigError(f"{where} {held}", hint="declare a topic of your own")
        if name in self.topics:
            raise ConfigError(f"{where} is declared twice")
        topic: Topic[Any, Any] = Topic(
            name,
            resolve_key(key, where, tombstones=True),
            resolve_value(value, codec, where, tombstones=True),
            self._checked(dedup, where),
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

    def owns(self, topic: Topic[Any, Any]) -> bool:
        return self.topics.get(topic.name) is topic

    def group(self, name: str) -> Group:
        """Declare another handler group, with tables, positions and commits of its own."""
        if name == MAIN_GROUP or name in self._groups:
            raise ConfigError(f"group {name} is declared twice")
        group = Group(self, name)
        self._groups[name] = group
        return group

    def resource(self, factory: Callable[[], R]) -> Resource[R]:
        """Declare a resource: `ctx.resource(r)` gives what `factory()` returned in this worker."""
        if not callable(factory):
            raise ConfigError(
                f"app.resource takes a function that makes the resource, not {factory!r}",
                hint="app.resource(lambda: Pool(...)): each worker makes its own, when it is first asked for",
            )
        return Resource(factory)

    @property
    def groups(self) -> list[Group]:
        """Groups that have handlers or sinks, `main` first."""
        return [group for group in (self, *self._groups.values()) if group.bindings or group.sinks]

"""The handles a user keeps: Topic, Table and Resource, made by an App, and Dedup. Compared by identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from pipeline.api.codecs import ValueCodec
from pipeline.api.event import Event
from pipeline.api.keys import KeyCodec
from pipeline.errors import ConfigError

__all__ = ["Dedup", "Resource", "Table", "Topic"]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
K_contra = TypeVar("K_contra", contravariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

LONGEST_TTL_S = 10 * 366 * 24 * 3600


class Dedup(Generic[K_contra, V_contra]):
    """Drop an event whose id was seen within `ttl_s` seconds, whoever has sent it again: `app.topic(..., dedup=...)`.

    ttl_s: how long an id is remembered, from the moment it was first processed, by the timestamps of the topic's
    records. At least 0.001, at most ten years.
    id: gives an event's id, str (as UTF-8) or bytes, not empty. Without it: the record's header `event-id`, as
    `pipeline produce --id` writes it. A record without an id is an error of that record.
    duplicates_to: a topic of the app that gets what is dropped, as it came.

    Each group that handles the topic remembers ids of its own, each task those of its partition: a duplicate under
    another key may lie in another partition, and passes. Raises ConfigError.
    """

    __slots__ = ("duplicates_to", "id", "ttl_ms")

    def __init__(
        self,
        *,
        ttl_s: float,
        id: Callable[[Event[K_contra, V_contra]], bytes | str] | None = None,  # noqa: A002 - the field's own word
        duplicates_to: Topic[Any, Any] | None = None,
    ) -> None:
        if type(ttl_s) not in {int, float} or not 0.001 <= ttl_s <= LONGEST_TTL_S:
            raise ConfigError(
                f"Dedup: ttl_s is {ttl_s!r}; it must be a number of seconds, 0.001 to {LONGEST_TTL_S:,}",
                hint="choose it above the longest time after which an event may be sent again",
            )
        if id is not None and not callable(id):
            raise ConfigError(f"Dedup: id is {id!r}; it must be a function of the event, or left out")
        if duplicates_to is not None and not isinstance(duplicates_to, Topic):
            raise ConfigError(
                f"Dedup: duplicates_to is {duplicates_to!r}; it must be what app.topic(...) returned"
            )
        self.ttl_ms = round(ttl_s * 1000)
        self.id = id
        self.duplicates_to = duplicates_to


class Topic(Generic[K, V]):
    """A topic of the app, for input, output or both. Compared by identity."""

    __slots__ = ("dedup", "key", "name", "value")

    def __init__(
        self, name: str, key: KeyCodec[K], value: ValueCodec[V], dedup: Dedup[K, V] | None = None
    ) -> None:
        self.name = name
        self.key = key
        self.value = value
        self.dedup = dedup

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


class Table(Generic[K, V]):
    """A table of a group; `ctx.table(definition)` gives the task's part of it. Compared by identity."""

    __slots__ = ("group", "key", "name", "upgrade", "value")

    def __init__(
        self,
        group: str,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        upgrade: Callable[[Any], V] | None = None,
    ) -> None:
        self.group = group
        self.name = name
        self.key = key
        self.value = value
        self.upgrade = upgrade

    @property
    def fingerprint(self) -> str:
        """Changes when stored bytes would be read differently."""
        return f"{self.key_fingerprint}{self.value.schema}"

    @property
    def key_fingerprint(self) -> str:
        """What the fingerprint begins with."""
        return f"{self.key.schema}->"

    def __repr__(self) -> str:
        return f"Table({self.group}.{self.name})"

    if not TYPE_CHECKING:  # a type checker knows that there are no rows here

        def _no_rows(self, *_: object) -> NoReturn:
            raise ConfigError(
                f"table {self.group}.{self.name} is a declaration and holds no rows",
                hint="in a handler, ctx.table(...) of it gives the rows: table = ctx.table(totals); table[key] = value",
            )

        __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = _no_rows
        get = get_many = items = update = _no_rows

        def __bool__(self) -> bool:
            return True


class Resource(Generic[R]):
    """Something expensive that handlers share: made once a worker, on first use; closed when it stops."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], R]) -> None:
        self.factory = factory

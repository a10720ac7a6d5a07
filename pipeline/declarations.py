"""The handles a user keeps: Topic, TableDef and Resource, made by an App. Compared by identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pipeline.codecs import ValueCodec
from pipeline.keys import KeyCodec

__all__ = ["Resource", "TableDef", "Topic"]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class Topic(Generic[K, V]):
    """A topic of the app, for input, output or both. Compared by identity."""

    __slots__ = ("key", "name", "value")

    def __init__(self, name: str, key: KeyCodec[K], value: ValueCodec[V]) -> None:
        self.name = name
        self.key = key
        self.value = value

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


class TableDef(Generic[K, V]):
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
        return f"TableDef({self.group}.{self.name})"


class Resource(Generic[R]):
    """Something expensive that handlers share: made once a worker, on first use; closed when it stops."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], R]) -> None:
        self.factory = factory

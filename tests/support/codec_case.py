"""Types of values, and their codecs for tables and topics."""

from __future__ import annotations

import enum
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec

from pipeline.api.codecs import ValueCodec, resolve_value

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Flight(msgspec.Struct, frozen=True, tag=True):
    carrier: str
    delay: int | None = None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    carrier: str


class Loose(msgspec.Struct):
    name: str = ""


class Holder(msgspec.Struct, frozen=True):
    names: list[str]


class Trip(msgspec.Struct, frozen=True):
    legs: tuple[str, ...]


class Box(msgspec.Struct, Generic[T], frozen=True):
    content: T


class Node(msgspec.Struct, frozen=True):
    value: int
    next: Node | None = None


class Pair(NamedTuple):
    left: int
    right: int


class Row(TypedDict):
    name: str


def table_codec(declared: Any, codec: Any = None) -> ValueCodec[Any]:
    return resolve_value(declared, codec, "table main.t", tombstones=False)


def topic_codec(declared: Any, codec: Any = None) -> ValueCodec[Any]:
    return resolve_value(declared, codec, "topic t", tombstones=True)


class Reversed:
    """A user's codec of str."""

    def encode(self, value: str, /) -> bytes:
        return value[::-1].encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()[::-1]

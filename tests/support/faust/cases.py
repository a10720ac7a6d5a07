"""What an application of `apps` reads, and what it must compute from that: the same under every engine.

An oracle is computed from the records that are committed in the input topics, so a timer may send any number of them.
It depends neither on the clock nor on the order of records of different keys.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.support.faust.kafka import Input, Message

__all__ = [
    "Case",
    "Pairs",
    "Records",
    "Results",
    "at_least_once",
    "decoded",
    "hashable",
    "in_any_order",
    "key_of",
    "plain",
    "rows_of_changelog",
    "values_of",
]

Records = Mapping[str, Sequence[Message]]
Pairs = list[tuple[str | None, Any]]


@dataclass
class Results:
    """Outputs by topic, as (key, value) in order, and rows by table and key. A window is a part of the key."""

    outputs: defaultdict[str, Pairs] = field(default_factory=lambda: defaultdict(list))
    tables: defaultdict[str, dict[Any, Any]] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True)
class Case:
    """An application and its oracle.

    Attributes:
        app: The module in `apps`.
        id: The application's id, without the prefix.
        inputs: Makes the records to send.
        expected: Computes the results from the committed records of all `sources`.
        sources: The topics that the oracle reads.
        outputs: The topics that are compared.
        tables: The tables that are compared; `set_tables`, those that are sets.
        inner: Other topics that the application uses.
        decode: How values of a topic or a table are decoded, if not from JSON.
        compared: How the outputs of a topic are compared, if not in order for each key.
        get: Paths, and what a page must answer with JSON at the end.
        post: Paths, and the JSON that is posted to a page at the beginning.
        command: A command of the application that is run once, with its arguments.
        sends: Whether the application sends its own inputs, until it is told to be quiet.
        least: Whether the application has sent enough.
        deadline_s: The longest time until the results are complete.
    """

    app: str
    id: str
    inputs: Callable[[random.Random], list[Input]]
    expected: Callable[[Records], Results]
    sources: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    set_tables: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    decode: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)
    compared: Mapping[str, Callable[[Pairs], Any]] = field(default_factory=dict)
    get: Callable[[Results], Mapping[str, Any]] | None = None
    post: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    sends: bool = False
    least: Callable[[Records], bool] = lambda _records: True
    partitions: int = 2
    deadline_s: float = 60.0

    @property
    def module(self) -> str:
        """The module, as an import names it."""
        return f"tests.support.faust.apps.{self.app}"

    @property
    def topics(self) -> dict[str, int]:
        """All topics but changelogs, with their partitions."""
        return dict.fromkeys([*self.sources, *self.outputs, *self.inner], self.partitions)

    def compare(self, results: Results) -> dict[str, Any]:
        """A form of results that is equal for equal results."""
        found: dict[str, Any] = {}
        for topic in self.outputs:
            pairs = results.outputs.get(topic, [])
            form: Callable[[Pairs], Any] = self.compared.get(topic, in_order)
            found[topic] = form(pairs)
        for table in (*self.tables, *self.set_tables):
            found[f"table {table}"] = dict(results.tables.get(table, {}))
        return found


def in_order(pairs: Pairs) -> dict[str | None, list[Any]]:
    """By key, in order."""
    found: dict[str | None, list[Any]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)


def in_any_order(pairs: Pairs) -> Counter[str]:
    """How often each pair is there."""
    return Counter(repr(pair) for pair in pairs)


def at_least_once(pairs: Pairs) -> set[str]:
    """Which pairs are there: for what is sent outside of agents."""
    return {repr(pair) for pair in pairs}


def plain(value: Any) -> Any:
    """A decoded value without the names of models that Faust adds, and hashable where it is a key."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key != "__faust"}
    return [plain(each) for each in value] if isinstance(value, list) else value


def decoded(message: Message, decode: Callable[[bytes], Any] = msgspec.json.decode) -> Any:
    """The value of a message; None for null."""
    return plain(decode(message.value)) if message.value is not None else None


def key_of(message: Message) -> str:
    """The key of a message that has one."""
    return (message.key or b"").decode()


def values_of(records: Records, topic: str) -> list[tuple[str, Any]]:
    """(key, value) of JSON records, in the order of each partition."""
    return [(key_of(message), decoded(message)) for message in records[topic]]


def rows_of_changelog(
    messages: Sequence[Message], *, sets: bool, decode: Callable[[bytes], Any] = msgspec.json.decode
) -> dict[Any, Any]:
    """The rows of a table from the topic in which Faust keeps its changes."""
    rows: dict[Any, Any] = {}
    members: dict[Any, set[Any]] = defaultdict(set)
    for message in messages:
        key = hashable(msgspec.json.decode(message.key or b"null"))
        value = decoded(message, decode)
        if sets:
            operation, of = key
            _apply(members[of], operation, value)
        elif value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    return {key: sorted(each) for key, each in members.items()} if sets else rows


def _apply(members: set[Any], operation: int, value: Any) -> None:
    """One change of a set: 1 adds, 2 discards, 15 has two lists, of added and of removed members."""
    if operation == 1:
        members.add(value)
    elif operation == 2:
        members.discard(value)
    else:
        members |= set(value[0])
        members -= set(value[1])


def hashable(value: Any) -> Any:
    """A decoded key with tuples for lists."""
    return tuple(hashable(each) for each in value) if isinstance(value, list) else value

"""Whether a batch of changes may be written as sets: `as_sets`. Pure.

A sink's rows must be the same as if each record were written alone, wherever batches end. The database decides which
keys are equal (5 and "5" in a bigint column, case under citext, NaN), which rows it refuses and what its triggers do.
So changes are written one after the other, in the order of their records, unless the table's `TableFacts` prove that
sets give the same result:

    a row that replaces an earlier row of the batch   only the later one is written, if equality in Python is equality
                                                      in the column, and the database could not refuse the earlier one
    a deletion before a row with the same key         both are written, the deletion first
    rows with different keys                          in any order, if no other constraint relates them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

__all__ = ["Change", "Gone", "Sets", "TableFacts", "ValueKind", "as_sets", "fits", "versions"]

Values = Sequence[Any]


def _any(_values: Values) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Gone:
    """The key of a row to delete, in the order of the target's key."""

    key: tuple[Any, ...]


Change = tuple[Any, ...] | Gone


@dataclass(frozen=True, slots=True)
class ValueKind:
    """What is known about the values of a column. Each function takes many values of one column; none of them is None.

    takes: the exact types of values whose text, copied, is what a parameter of a statement would be; `readable`: and
    which of those values.
    key: the exact type of values by whose equality the column tells keys apart; None: equality is not known;
    `comparable`: and between which of them.
    sure: values that the column never refuses, whatever they are.
    """

    takes: frozenset[type] = frozenset({str})
    readable: Callable[[Values], bool] = _any
    key: type | None = None
    comparable: Callable[[Values], bool] = _any
    sure: Callable[[Values], bool] | None = None


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The properties of a table that decide whether rows can be written as sets.

    kinds, types: of each column; `types`: the type's name in SQL.
    required: columns that are NOT NULL.
    in_sets: many rows may be one statement: no triggers, rules, partitions, or references to the table itself.
    independent: rows of different keys cannot meet: no other unique constraint.
    unchecked: nothing but the columns' types and NOT NULL refuses a row.
    """

    kinds: Mapping[str, ValueKind]
    types: Mapping[str, str]
    required: frozenset[str]
    in_sets: bool
    independent: bool
    unchecked: bool


@dataclass(frozen=True, slots=True)
class Sets:
    """The deletions come first. Rows are in the order of their records."""

    deletes: Sequence[tuple[Any, ...]]
    rows: Sequence[tuple[Any, ...]]


def as_sets(
    changes: Sequence[Change], columns: Sequence[str], key: Sequence[str], facts: TableFacts | None
) -> Sets | None:
    """The changes as sets; None if they must be written one after the other."""
    if facts is None or not facts.in_sets or not changes:
        return None
    keys = _keys(changes, columns, key)
    for name, values in zip(key, zip(*keys, strict=True), strict=True):
        kind = facts.kinds[name]
        if kind.key is None or {*map(type, values)} != {kind.key} or not kind.comparable(values):
            return None
    rows = [change for change in changes if not isinstance(change, Gone)]
    if len(rows) == len(changes) == len({*keys}):
        return Sets([], rows)
    return _merged(changes, keys, columns, facts)


def _merged(
    changes: Sequence[Change], keys: Sequence[tuple[Any, ...]], columns: Sequence[str], facts: TableFacts
) -> Sets | None:
    """The sets if keys are repeated or rows are deleted."""
    if not facts.independent:
        return None
    last = {each: at for at, each in enumerate(keys)}
    if len(last) < len(changes):
        replaced = [
            change
            for at, change in enumerate(changes)
            if not isinstance(change, Gone) and last[keys[at]] != at
        ]
        if not facts.unchecked or not _sure(replaced, columns, facts):
            return None
    rows = [change for at in sorted(last.values()) if not isinstance(change := changes[at], Gone)]
    deletes = dict.fromkeys(
        each for each, change in zip(keys, changes, strict=True) if isinstance(change, Gone)
    )
    return Sets(list(deletes), rows)


def versions(changes: Sequence[Change], columns: Sequence[str], key: Sequence[str]) -> float:
    """The average number of versions of a row at the end of a transaction with these changes."""
    try:
        counts = Counter(_keys(changes, columns, key))
    except TypeError:  # a key without a hash, such as an array or JSON
        return 1.0
    return sum(count * count for count in counts.values()) / max(len(changes), 1)


def _keys(changes: Sequence[Change], columns: Sequence[str], key: Sequence[str]) -> list[tuple[Any, ...]]:
    places = [columns.index(name) for name in key] if columns else []
    rows = [change for change in changes if not isinstance(change, Gone)]
    if len(rows) == len(changes):
        return list(zip(*[[row[place] for row in rows] for place in places], strict=True))
    return [
        change.key if isinstance(change, Gone) else tuple([change[place] for place in places])
        for change in changes
    ]


def fits(rows: Sequence[tuple[Any, ...]], columns: Sequence[str], facts: TableFacts | None) -> bool:
    """Whether rows can be sent by COPY: the text of each value is read like a statement's parameter."""
    if facts is None:
        return False
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        kind = facts.kinds.get(name)
        if kind is None:
            return False
        types = {*map(type, values)}
        if not types - {NoneType} <= kind.takes:
            return False
        if kind.readable is not _any and not kind.readable(_present(values, types)):
            return False
    return True


def _sure(rows: Sequence[tuple[Any, ...]], columns: Sequence[str], facts: TableFacts) -> bool:
    """Whether the database cannot refuse any of the rows."""
    if not rows:
        return True
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        kind = facts.kinds.get(name)
        if kind is None or kind.sure is None:
            return False
        types = {*map(type, values)}
        if NoneType in types and name in facts.required:
            return False
        present = _present(values, types)
        if not types - {NoneType} <= kind.takes or not kind.readable(present):
            return False
        if present and not kind.sure(present):
            return False
    return True


def _present(values: Values, types: set[type]) -> Values:
    return [value for value in values if value is not None] if NoneType in types else values

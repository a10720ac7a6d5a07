"""The facts about values of PostgreSQL's types: `kind_of`. Pure.

Types that are not listed accept only str. The server parses it with the input function of the type, as a parameter and
in COPY. The database alone decides about their keys and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from pipeline.core.row_sets import ValueKind, Values

__all__ = ["kind_of"]

# A btree entry has at most 2,704 bytes: three such values with 4 bytes per character.
INDEXED_CHARACTERS = 200
_NUMERIC_DIGITS = 1_000
_UNKNOWN = ValueKind()


def kind_of(
    name: str, modifier: int, element: str, *, deterministic: bool, unicode: bool, indexed: bool
) -> ValueKind:
    """The facts about a type of pg_catalog.

    `name`: its name. `modifier`: atttypmod. `element`: for an array, the name of its element type. `deterministic`:
    whether the column's collation is. `unicode`: whether the server's encoding is UTF-8. `indexed`: whether the table
    has indexes in addition to the key's.
    """
    if element:
        of = kind_of(element, -1, "", deterministic=True, unicode=unicode, indexed=indexed)
        return (
            ValueKind(frozenset({list, str}), partial(_lists_of, of.key)) if of.key is not None else _UNKNOWN
        )
    if name in {"text", "varchar"}:
        if modifier != -1 or not unicode:
            return _UNKNOWN
        limit = INDEXED_CHARACTERS if indexed else None
        return ValueKind(key=str if deterministic else None, sure=partial(_encodes, limit))
    if name == "numeric":
        return _numeric(modifier)
    kind = _KINDS.get(name, _UNKNOWN)
    rounds = name in {"timestamptz", "timestamp"} and modifier != -1
    bounded = name == "bytea" and indexed
    return replace(kind, key=None if rounds else kind.key, sure=None if bounded else kind.sure)


def _within(bound: int, values: Values) -> bool:
    return {*map(type, values)} == {int} and -bound <= min(values) and max(values) < bound


def _encodes(limit: int | None, values: Values) -> bool:
    """Whether the values contain no NUL and no lone surrogate, and are within the limit."""
    text = "".join(values)
    if "\0" in text or (limit is not None and max(map(len, values)) > limit):
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_text(values: Values) -> bool:
    """Whether there is no str, which the input function of the type may refuse."""
    return str not in {*map(type, values)}


def _lists_of(element: type, values: Values) -> bool:
    return all(type(value) is str or {*map(type, value)} <= {element} for value in values)


def _all_utc(values: Values) -> bool:
    return all(value.tzinfo is UTC for value in values)


def _all_naive(values: Values) -> bool:
    return all(type(value) is str or value.tzinfo is None for value in values)


def _numeric(modifier: int) -> ValueKind:
    """The facts about NUMERIC, and about NUMERIC(precision, scale), which rounds and has a limit."""
    takes: frozenset[type] = frozenset({int, Decimal, str})
    if modifier == -1:
        return ValueKind(takes, key=int, sure=partial(_below, Decimal(10) ** _NUMERIC_DIGITS))
    precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (modifier - 4) & 0x7FF
    if not 0 <= scale < precision:
        return ValueKind(takes)
    return ValueKind(takes, sure=partial(_below, Decimal(10) ** (precision - scale) - 1))


def _below(bound: Decimal, values: Values) -> bool:
    return _not_text(values) and all(
        (type(value) is int or (value.is_finite() and value.adjusted() > -_NUMERIC_DIGITS))
        and abs(value) < bound
        for value in values
    )


def _types(*types: type) -> Callable[[Sequence[Any]], bool]:
    return lambda values: {*map(type, values)} <= {*types}


_INTEGERS = {"int2": 15, "int4": 31, "int8": 63}
_KINDS = {
    **{
        name: ValueKind(frozenset({int, str}), key=int, sure=partial(_within, 1 << bits))
        for name, bits in _INTEGERS.items()
    },
    "bytea": ValueKind(frozenset({bytes, str}), key=bytes, sure=_not_text),
    "bool": ValueKind(frozenset({bool, str}), key=bool, sure=_not_text),
    # Not a key: the column treats 0 and -0 as equal although they print differently, and NaN as equal to itself.
    "float8": ValueKind(frozenset({float, int, str}), sure=_types(float)),
    "uuid": ValueKind(frozenset({UUID, str}), key=UUID, sure=_not_text),
    "date": ValueKind(frozenset({date, str}), key=date, sure=_not_text),
    "timestamptz": ValueKind(frozenset({datetime, str}), key=datetime, comparable=_all_utc, sure=_not_text),
    "timestamp": ValueKind(
        frozenset({datetime, str}), _all_naive, key=datetime, comparable=_all_naive, sure=_not_text
    ),
    "interval": ValueKind(frozenset({timedelta, str}), sure=_not_text),
    "jsonb": ValueKind(frozenset({dict, str})),
}

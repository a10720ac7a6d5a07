"""What is known about values of PostgreSQL's types: `kind_of`. Pure.

Types that are not listed accept str only, which the server parses with the type's input function both as a parameter
and in COPY; their keys and rows are left to the database.
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

# An entry of a btree takes 2,704 bytes: three such values of 4 bytes a character.
INDEXED_CHARACTERS = 200
_NUMERIC_DIGITS = 1_000
_UNKNOWN = ValueKind()


def kind_of(
    name: str, modifier: int, element: str, *, deterministic: bool, unicode: bool, indexed: bool
) -> ValueKind:
    """Of a type of pg_catalog by its name.

    modifier: atttypmod. element: the element type's name, of an array. deterministic: the column's collation. unicode:
    the server's encoding is UTF-8. indexed: the table has more indexes than the key's.
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
    """No NUL, no half of a surrogate pair."""
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
    """A str is read by the type, which may refuse it."""
    return str not in {*map(type, values)}


def _lists_of(element: type, values: Values) -> bool:
    return all(type(value) is str or {*map(type, value)} <= {element} for value in values)


def _all_utc(values: Values) -> bool:
    return all(value.tzinfo is UTC for value in values)


def _all_naive(values: Values) -> bool:
    return all(type(value) is str or value.tzinfo is None for value in values)


def _numeric(modifier: int) -> ValueKind:
    """NUMERIC, or NUMERIC(precision, scale), which rounds and is bounded."""
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
    # Zero and minus zero are one value in the column and print differently; so is NaN: no key.
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

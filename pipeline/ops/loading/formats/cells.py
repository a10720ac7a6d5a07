"""Converts the cells of a CSV file: to numbers if the conversion is exact, otherwise to text. Pure.

A cell is a number if it is a plain decimal of at most 15 digits, such as `0`, `-17` or `3.50`. A leading zero, a plus
sign, an exponent or a blank makes it text: `007`, `02134`, `1e5`, ` 5`.

A column is read as numbers only if all cells at the beginning of the file are numbers, except those that are empty or
null. So a column of zip codes is text as a whole, both `90210` and `02134`. A later cell that is not a number is text,
and not an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pipeline.errors import InputError

__all__ = ["MAX_TIMESTAMP_MS", "Numbers", "Timestamps", "is_number", "text_columns", "timestamp_ms"]

_MAX_REMEMBERED = 100_000
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?")
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_TIMESTAMP_MS = 253_402_300_799_999  # the end of the year 9999

Cell = str | int | float | None


def is_number(cell: str) -> bool:
    """Whether the cell is read as a number. A double represents every such decimal without loss."""
    if not _NUMBER.fullmatch(cell):
        return False
    digits = cell.lstrip("-").replace(".", "").lstrip("0")
    return len(digits) <= 15 and cell != "-0"


def text_columns(rows: Sequence[Sequence[str]], width: int, nulls: Collection[str]) -> tuple[int, ...]:
    """The columns, by index, that have a cell in these rows that is not a number, not empty and not null."""
    return tuple(
        column
        for column in range(width)
        if any(
            row[column] and row[column] not in nulls and not is_number(row[column])
            for row in rows
            if len(row) == width
        )
    )


class Numbers(dict[str, Cell]):
    """A cache from cells to values. A lookup takes a tenth of the time of a conversion."""

    __slots__ = ("_nulls",)

    def __init__(self, nulls: Collection[str]) -> None:
        super().__init__()
        self._nulls = frozenset(nulls)

    def __missing__(self, cell: str) -> Cell:
        value: Cell = cell
        if cell in self._nulls:
            value = None
        elif is_number(cell):
            value = float(cell) if "." in cell else int(cell)
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        self[cell] = value
        return value


class Timestamps(dict[str, int]):
    """A cache from cells to epoch milliseconds. Raises InputError if a cell is not a timestamp."""

    __slots__ = ()

    def __missing__(self, cell: str) -> int:
        value = timestamp_ms(cell)
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        self[cell] = value
        return value


def timestamp_ms(value: object) -> int:
    """Epoch milliseconds from a whole number of epoch milliseconds, or an ISO 8601 text; without a zone it is UTC.

    Raises InputError without the line, which the caller knows.
    """
    if isinstance(value, str):
        number = int(value) if _WHOLE.fullmatch(value) else _iso_ms(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise InputError(f"{value!r} is not a timestamp: use epoch milliseconds or ISO 8601")
    if not 0 <= number <= MAX_TIMESTAMP_MS:
        raise InputError(f"the timestamp {value!r} is outside the years 1970 to 9999")
    return number


def _iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a timestamp: use epoch milliseconds or ISO 8601") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000

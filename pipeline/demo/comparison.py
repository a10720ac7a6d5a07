"""Compares what `pipeline demo` finds in the output topic and in the tables with the expected results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

__all__ = ["Comparison", "Found", "compare", "show"]


@dataclass(frozen=True)
class Found:
    """What was read: keys with their values as JSON documents, in the order of their partition.

    Attributes:
        results: (account, value) of each committed record of the output topic.
        accounts: (account, value) of each row of the table, from the state of the task's last owner.
    """

    results: Sequence[tuple[str, object]]
    accounts: Sequence[tuple[str, object]]


@dataclass(frozen=True)
class Comparison:
    """One line of the table: numbers of values, and of accounts whose values are not exactly those expected."""

    what: str
    expected: int
    found: int
    lost: int
    duplicated: int
    wrong: int

    @property
    def exact(self) -> bool:
        """Whether no value is lost, duplicated, wrong or in the wrong order."""
        return not (self.lost or self.duplicated or self.wrong)


def compare(
    results: Mapping[str, Sequence[object]], accounts: Mapping[str, object], found: Found
) -> list[Comparison]:
    """Compare the output topic and the table with what is expected of each account."""
    return [
        _compared("output records", results, found.results),
        _compared("table rows", {name: [value] for name, value in accounts.items()}, found.accounts),
    ]


def show(lines: Iterable[Comparison], console: Console) -> None:
    """Print the comparisons as a table."""
    console.print("Compared with a run without Kafka:")
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("expected", "found", "lost", "duplicated", "wrong accounts"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        numbers = (line.expected, line.found, line.lost, line.duplicated, line.wrong)
        table.add_row(line.what, *(f"{number:,}" for number in numbers))
    console.print(table)


def _compared(
    what: str, expected: Mapping[str, Sequence[object]], found: Sequence[tuple[str, object]]
) -> Comparison:
    by_key: dict[str, list[object]] = {}
    for key, value in found:
        by_key.setdefault(key, []).append(value)
    lost = duplicated = wrong = 0
    for key in expected.keys() | by_key.keys():
        wanted, actual = list(expected.get(key, ())), by_key.get(key, [])
        if wanted == actual:
            continue
        wrong += 1
        missing, extra = Counter(map(_text, wanted)), Counter(map(_text, actual))
        lost += (missing - extra).total()
        duplicated += (extra - missing).total()
    return Comparison(what, sum(map(len, expected.values())), len(found), lost, duplicated, wrong)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)

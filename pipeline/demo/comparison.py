"""The generated payments of `pipeline demo`, the results that the app must produce, and what differs from them.

A loop in this process computes the results, without Kafka. It shares no code with `app.py`, so that an error in one of
them cannot hide in the other.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["Comparison", "Expected", "Found", "compare", "fold", "show", "write_payments"]

ACCOUNTS = 200
_MOST_CENTS = 10_000


@dataclass
class Expected:
    """What must be found. Values are JSON documents as Python objects.

    Attributes:
        results: for each account, the values of the output topic, in order.
        accounts: for each account, the last value in the table.
    """

    results: dict[str, list[object]] = field(default_factory=dict)
    accounts: dict[str, object] = field(default_factory=dict)


def write_payments(file: Path, count: int, seed: int) -> None:
    """Write `count` payments, one JSON object a line with the account as `account`; a seed always gives the same."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, and no secret
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            account = f"account-{chance.randrange(ACCOUNTS):03}"
            cents = chance.randint(-_MOST_CENTS, _MOST_CENTS)
            lines.write(f'{{"account":"{account}","number":{number},"cents":{cents}}}\n')


def fold(file: Path) -> Expected:
    """Process the payments of a file in one loop."""
    expected = Expected()
    counts: dict[str, dict[str, int]] = {}
    with file.open(encoding="utf-8") as lines:
        for payment in map(json.loads, lines):
            name = payment["account"]
            count = counts.setdefault(name, {"payments": 0, "refused": 0, "balance": 0})
            count["payments"] += 1
            if count["balance"] + payment["cents"] < 0:
                count["refused"] += 1
                accepted = False
            else:
                count["balance"] += payment["cents"]
                accepted = True
            result = {"number": payment["number"], "accepted": accepted, "balance": count["balance"]}
            expected.results.setdefault(name, []).append(result)
    expected.accounts.update(counts)
    return expected


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

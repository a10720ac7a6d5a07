"""The generated payments of `pipeline demo`, and the results that the app must produce from them.

A loop in this process computes the results, without Kafka. It shares no code with `app.py`, so that an error in one of
them cannot hide in the other.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Expected", "fold", "write_payments"]

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

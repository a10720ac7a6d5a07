"""Orders and payments of a small shop for examples/orders: `write_traffic`. Pure, apart from the files.

The same number of orders has the same content each time. Most orders are paid at once, some in two payments, and some
not at all, so that the table of the join has rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

__all__ = ["CUSTOMERS", "orders_and_payments", "refused_orders", "write_traffic"]

# By name, and with the country.
CUSTOMERS: Sequence[tuple[str, str]] = (
    *(("anna", "DE"), ("ben", "GB"), ("carla", "IT"), ("david", "US"), ("elena", "ES"), ("felix", "DE")),
    *(("grace", "GB"), ("hugo", "FR"), ("ines", "PT"), ("jonas", "SE"), ("kate", "US"), ("luca", "IT")),
    *(("marie", "FR"), ("nils", "SE"), ("olga", "PL"), ("paul", "DE"), ("rosa", "ES"), ("sam", "US")),
    *(("tomas", "CZ"), ("ursula", "AT"), ("vera", "CZ"), ("wim", "NL"), ("yara", "NL"), ("zoe", "FR")),
)
_FIRST_NUMBER = 10_001
_PRICES = (499, 990, 1_250, 1_999, 2_490, 3_495, 4_900, 7_999, 12_900)
_UNPAID, _IN_TWO = 0.04, 0.15  # the shares of orders

Row = dict[str, object]


def orders_and_payments(count: int) -> tuple[list[Row], list[Row]]:
    """This many orders, and their payments in the same order."""
    random = Random(1)  # noqa: S311 - the same pictures each time, and no secret
    orders: list[Row] = []
    payments: list[Row] = []
    for number in range(_FIRST_NUMBER, _FIRST_NUMBER + count):
        name, country = random.choice(CUSTOMERS)
        cents = sum(random.choices(_PRICES, k=random.randint(1, 3)))
        orders.append({"order": f"o{number}", "customer": name, "country": country, "cents": cents})
        chance = random.random()
        if chance < _UNPAID:
            continue
        parts = [cents] if chance > _UNPAID + _IN_TWO else [cents // 2, cents - cents // 2]
        payments += [{"order": f"o{number}", "cents": part} for part in parts]
    return orders, payments


def refused_orders() -> list[Row]:
    """Orders of another program, which writes amounts as text. Their type is wrong, so they become dead letters.

    Their keys are in one partition of four, so that the page shows them together.
    """
    return [
        {"order": "w4711", "customer": "marie", "country": "FR", "cents": "49.00 EUR"},
        {"order": "w4716", "customer": "wim", "country": "NL", "cents": "12.50 EUR"},
        {"order": "w4722", "customer": "anna", "country": "DE", "cents": "34.95 EUR"},
    ]


def write_traffic(directory: Path, count: int) -> tuple[Path, Path, Path]:
    """Write the files for `pipeline produce`: orders, payments, and orders that are refused."""
    orders, payments = orders_and_payments(count)
    files = (
        (directory / "orders.jsonl", orders),
        (directory / "payments.jsonl", payments),
        (directory / "web-orders.jsonl", refused_orders()),
    )
    for path, rows in files:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (first, _), (second, _), (third, _) = files
    return first, second, third

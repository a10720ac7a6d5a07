"""Input for the orders example, and its expected results, from a fold without stages or partitions."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from examples.orders.app import CustomerTotal, Order, Payment, Total

__all__ = ["Sent", "check_outputs"]

COUNTRIES = ("DE", "FR", "IT")


class Sent:
    """Orders and payments in the order in which they were drawn. Some orders are never paid, some are paid twice."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.orders: dict[str, Order] = {}
        self.payments: dict[str, list[int]] = defaultdict(list)

    def draw(self, count: int) -> list[tuple[str, Order | Payment]]:
        """`count` more orders with their payments, shuffled: (number, order or payment)."""
        drawn: list[tuple[str, Order | Payment]] = []
        for _ in range(count):
            number, customer = f"o{len(self.orders)}", self._random.randrange(12)
            order = Order(f"customer-{customer}", COUNTRIES[customer % 3], self._random.randrange(2, 500))
            self.orders[number] = order
            drawn.append((number, order))
            for cents in self._random.choice([[], [order.cents], [order.cents], [1, order.cents - 1]]):
                self.payments[number].append(cents)
                drawn.append((number, Payment(cents)))
        self._random.shuffle(drawn)
        return drawn

    def paid(self) -> list[Order]:
        """The orders that are paid."""
        return [o for number, o in self.orders.items() if sum(self.payments[number]) >= o.cents]

    def by_customer(self) -> dict[str, Total]:
        return _totals((order.customer, order.cents) for order in self.paid())

    def by_country(self) -> dict[str, Total]:
        return _totals((order.country, order.cents) for order in self.paid())


def check_outputs(
    sent: Sent,
    paid: Sequence[Order],
    customers: Sequence[CustomerTotal],
    countries: Mapping[str, Sequence[Total]],
    *,
    complete: bool = True,
) -> None:
    """Check that every paid order counts once in each stage, and that totals grow by one order at a time.

    The orders of a customer come from several partitions, in an order that differs between runs. So the check uses only
    properties of every order. Without `complete`, some results may still be missing.
    """
    due = Counter((order.customer, order.country, order.cents) for order in sent.paid())
    found = Counter((order.customer, order.country, order.cents) for order in paid)
    assert found == due if complete else found <= due
    steps: dict[str, list[CustomerTotal]] = defaultdict(list)
    for total in customers:
        steps[total.customer].append(total)
    for rows in steps.values():
        rows.sort(key=lambda row: row.total.orders)
        _check_rising([row.total for row in rows])
        assert [row.total.cents for row in rows] == _running(row.cents for row in rows)
    for rising in countries.values():
        _check_rising(rising)
    if complete:
        assert {name: rows[-1].total for name, rows in steps.items()} == sent.by_customer()
        assert {country: rising[-1] for country, rising in countries.items()} == sent.by_country()


def _check_rising(totals: Sequence[Total]) -> None:
    assert [total.orders for total in totals] == list(range(1, len(totals) + 1))
    assert all(before.cents < after.cents for before, after in itertools.pairwise(totals))


def _running(cents: Iterable[int]) -> list[int]:
    total, result = 0, []
    for each in cents:
        total += each
        result.append(total)
    return result


def _totals(rows: Iterable[tuple[str, int]]) -> dict[str, Total]:
    found: dict[str, Total] = {}
    for key, cents in rows:
        before = found.get(key, Total())
        found[key] = Total(before.orders + 1, before.cents + cents)
    return found

"""Dead letters of amounts, of which some are bad, and their replay."""

from __future__ import annotations

from typing import Any

from pipeline.app import declared_app
from pipeline.ops.dead_letters.replaying import Replayer
from tests.support.ops.dead_letters.orders import Orders

BAD = frozenset({3, 4, 8, 11})
ALL = range(1, 13)


def failed(**options: Any) -> Orders:
    """Orders with handled amounts and with bad ones, which are dead letters. The handler is now fixed."""
    orders = Orders(**options)
    orders.bad = set(BAD)
    orders.send(*ALL)
    orders.driver.run()
    orders.check(without=BAD)
    orders.bad = set()
    orders.seen.clear()
    return orders


def replayer(orders: Orders, *, again: bool = False) -> Replayer:
    return Replayer(declared_app(orders.app).main, orders.driver.environment(), 500, again=again)

"""Broken on purpose: producers: delivery, forks and transactions."""

from __future__ import annotations

import pytest

import pipeline.producing.delivery
import pipeline.producing.encoding
import pipeline.producing.outbox
import pipeline.producing.transactions
import pipeline.transactions.engine
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a failed event is forgotten if its delivery is not checked",
        pipeline.producing.outbox.Outbox._finish,
        "                self.remember(delivery)\n",
        "                pass\n",
        "tests/producing/test_producer_end.py unchecked_failures",
    ),
    Broken(
        "flush returns while events wait",
        pipeline.producing.outbox.Outbox._wait_until_settled,
        "(self._waiting and next(iter(self._waiting)).sequence <= sequence)",
        "False",
        "tests/producing/test_producer_end.py flush_names",
    ),
    Broken(
        "a caller waits for the outcome of an event while reports gather",
        pipeline.producing.delivery.RuntimeDelivery.future,
        "                origin.hurry()\n",
        "                pass\n",
        "tests/producing/test_producer_bounds.py gathering",
    ),
    Broken(
        "a sender waits for room while reports gather",
        pipeline.producing.outbox.Outbox._wait_for_room,
        "        self.hurry()\n",
        "",
        "tests/producing/test_producer_bounds.py gathering",
    ),
    Broken(
        "a forked child makes the ids that its parent makes",
        pipeline.producing.encoding,
        "\nin_children(_forget_suffixes)\n",
        "",
        "tests/producing/test_forks.py",
    ),
    Broken(
        "a commit whose outcome is unknown passes for done",
        pipeline.producing.transactions.TransactionalSender._commit,
        '            raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", hint=_RESOLVE) from error\n',
        "            return\n",
        "tests/producing/test_transactions.py unknown_outcome",
    ),
    Broken(
        "a batch without an event that was refused commits",
        pipeline.producing.transactions.TransactionalSender.transaction,
        "                batch.complete()\n",
        "",
        "tests/producing/test_transactions.py though_it_is_caught",
    ),
    Broken(
        "no fence after a transaction that ended badly",
        pipeline.transactions.engine.TransactionEngine.begin,
        "        self._fence_due = True\n        producer.begin()\n",
        "        producer.begin()\n",
        "tests/producing/test_transactions.py bad_end",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)

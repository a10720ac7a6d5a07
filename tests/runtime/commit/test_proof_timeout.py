"""The proof of the first commit after a fence: how long it may take in its open transaction."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.runtime.commit import journal_writer
from pipeline.testing.memory_clients import MemoryProducer
from pipeline.transactions.proof import prove_read
from tests.support.runtime.sums import Sums


@pytest.mark.parametrize(("delivery_s", "left_s"), [(0.0, 10.0), (4.0, 6.0), (15.0, 0.0)])
def test_a_proof_leaves_time_for_the_commit(
    delivery_s: float, left_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proof that outlasts its transaction costs the task: the coordinator aborts it and fences the producer."""
    sums = Sums.begun()
    assert sums.driver.settings.transaction_timeout_ms == 20_000
    timeouts: list[float] = []
    flush = MemoryProducer.flush

    def slow_flush(self: MemoryProducer) -> int:
        sums.driver.clock.advance(delivery_s)
        return flush(self)

    def prove(*args: Any, timeout_s: float, **named: Any) -> None:
        timeouts.append(timeout_s)
        prove_read(*args, timeout_s=timeout_s, **named)

    monkeypatch.setattr(MemoryProducer, "flush", slow_flush)
    monkeypatch.setattr(journal_writer, "prove_read", prove)
    sums.driver.restart()
    sums.driver.run()
    assert timeouts == [pytest.approx(left_s)]
    sums.check()

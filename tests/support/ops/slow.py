"""A Kafka whose commits are slow, and which says how often it was asked to fence."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.testing import ManualClock, MemoryBroker


class SlowClock(ManualClock):
    """Each look at it takes 0.4 s: a commit lies between two."""

    def monotonic_s(self) -> float:
        self.advance(0.4)
        return super().monotonic_s()


def count_inits(broker: MemoryBroker, before: Callable[[int], object] = lambda _: None) -> list[str]:
    """The transactional id of each `init` from now on; `before` is told which it is, from 1, before it acts."""
    ids: list[str] = []
    init = broker.init

    def counted(transactional_id: str) -> int:
        ids.append(transactional_id)
        before(len(ids))
        return init(transactional_id)

    broker.init = counted  # type: ignore[method-assign]
    return ids

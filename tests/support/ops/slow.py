"""A Kafka with slow commits that counts its fences."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.testing import ManualClock, MemoryBroker


class SlowClock(ManualClock):
    """A clock that advances by 0.4 s with each read. A commit is between two reads."""

    def monotonic_s(self) -> float:
        self.advance(0.4)
        return super().monotonic_s()


def count_inits(broker: MemoryBroker, before: Callable[[int], object] = lambda _: None) -> list[str]:
    """Record the transactional id of each `init` from now on. `before` is called first with the number, from 1."""
    ids: list[str] = []
    init = broker.init

    def counted(transactional_id: str) -> int:
        ids.append(transactional_id)
        before(len(ids))
        return init(transactional_id)

    broker.init = counted  # type: ignore[method-assign]
    return ids

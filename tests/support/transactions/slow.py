"""`SlowEnds`: an in-memory Kafka client whose commits and aborts take time, and which counts its clients."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.testing import ManualClock, MemoryBroker
from pipeline.testing.memory_clients import MemoryProducer, MemoryProducers


class SlowEnds(MemoryProducers):
    """`commit_s`, `abort_s`: the duration of each in seconds."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        super().__init__(broker)
        self._clock = clock
        self.commit_s = 0.0
        self.abort_s = 0.0
        self.opened: list[MemoryProducer] = []
        self.open_now = 0

    def open(self, transactional_id: str) -> MemoryProducer:
        producer = super().open(transactional_id)
        commit, abort, close = producer.commit, producer.abort, producer.close

        def slow_commit(timeout_s: float | None = None) -> None:
            self._clock.advance(self.commit_s)
            commit(timeout_s)

        def slow_abort(timeout_s: float | None = None) -> None:
            self._clock.advance(self.abort_s)
            abort(timeout_s)

        producer.commit = slow_commit  # type: ignore[method-assign]
        producer.abort = slow_abort  # type: ignore[method-assign]
        producer.close = self._counted(close)  # type: ignore[method-assign]
        self.opened.append(producer)
        self.open_now += 1
        return producer

    def _counted(self, close: Callable[[], None]) -> Callable[[], None]:
        def closing() -> None:
            close()
            self.open_now -= 1

        return closing

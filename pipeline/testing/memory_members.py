"""One worker as a member of its consumer group, in memory: `MemoryMembers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.errors import InvariantError, PipelineError
from pipeline.ports import Clock, Output
from pipeline.testing.memory_broker import MemoryBroker, Session

__all__ = ["MemoryMembers"]


class MemoryMembers:
    """`ports.Members`. A worker that makes no progress during the session timeout is not listed."""

    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._joined: tuple[str, Session] | None = None

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        if self._broker.describe(topic) is None:
            raise InvariantError(f"members of {consumer_group} subscribe to {topic}, which does not exist")
        session = Session(client_id, progress, self._clock)
        self._joined = consumer_group, session
        self._broker.groups.join(consumer_group, session)

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        with self._broker.faults.at("announce"):
            for key, value in notes:
                self._broker.produce(Output(topic, key, value, 0), partition=0)

    def problem(self) -> PipelineError | None:
        return None

    def leave(self) -> None:
        if self._joined is not None:
            self._broker.groups.leave(*self._joined)
            self._joined = None

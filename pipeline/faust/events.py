"""Faust's Event and Message, over a record of the Kafka client. What is rarely read is made when it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from faust.events import Event
from faust.types import TP
from faust.types.tuples import Message

from pipeline.core.headers import headers_of
from pipeline.ports import Record

__all__ = ["EngineEvent", "EngineMessage"]


class EngineMessage(Message):
    """A record. Its position is committed by the engine, so acknowledging it does nothing."""

    __slots__ = ("record",)

    # Of what only Faust's own consumer uses.
    acked = False
    checksum = None
    generation_id = 0
    refcount = 0
    span = None
    time_in = time_out = time_total = None
    tracked = True

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def topic(self) -> str:
        return str(self.record.topic())

    @property
    def partition(self) -> int:
        return int(self.record.partition())

    @property
    def tp(self) -> TP:
        return TP(self.record.topic(), self.record.partition())

    @property
    def offset(self) -> int:
        return int(self.record.offset())

    @property
    def timestamp(self) -> float:
        """Seconds since the epoch."""
        return float(self.record.timestamp()[1] / 1000)

    @property
    def timestamp_type(self) -> int:
        """0: of the producer; 1: of the broker."""
        return max(0, int(self.record.timestamp()[0]) - 1)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(headers_of(self.record))

    @property
    def key(self) -> bytes | None:
        return self.record.key()

    @property
    def value(self) -> bytes | None:
        return self.record.value()

    @property
    def serialized_key_size(self) -> int:
        return len(self.record.key() or b"")

    @property
    def serialized_value_size(self) -> int:
        return len(self.record.value() or b"")

    def ack(self, consumer: Any, n: int = 1) -> bool:  # noqa: ARG002 - as Faust calls it
        return False

    def incref(self, n: int = 1) -> None:
        """Nothing: the engine counts no references."""

    def decref(self, n: int = 1) -> int:  # noqa: ARG002 - as Faust calls it
        return 0


class EngineEvent(Event):
    """An event of an agent. It is finished when the agent asks for the next one."""

    def __init__(self, app: Any, key: Any, value: Any, record: Record, outputs: Any) -> None:
        self.app = app
        self.key = key
        self.value = value
        self.message = EngineMessage(record)
        self.acked = False
        self._outputs = outputs

    @property
    def headers(self) -> dict[str, bytes | None]:
        return dict(self.message.headers)

    def ack(self) -> bool:
        """Nothing: an event is finished when the agent asks for the next one."""
        return False

    def _attach(self, channel: Any, key: Any = None, value: Any = None, **options: Any) -> Awaitable[Any]:
        """Send as part of the commit of this event. Faust calls it for each send while an event is current."""
        sent: Awaitable[Any] = self._outputs.send(channel, key, value, **options)
        return sent

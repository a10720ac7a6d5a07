"""Due steps, such as the end of a window, as records of pseudo-topics: `StepRecord`."""

from __future__ import annotations

__all__ = ["StepRecord"]

_CREATE_TIME = 1


class StepRecord:
    """`ports.Record`: a due step. Its offset is the time at which it is due, in milliseconds.

    So is its timestamp, unless a subclass has another one. A subclass has `topic_id`, which tells the steps of one
    topic and time apart.
    """

    __slots__ = ("_data", "_due_ms", "_key", "_partition", "_topic")

    def __init__(self, topic: str, partition: int, due_ms: int, key: bytes | None, data: bytes) -> None:
        self._topic = topic
        self._partition = partition
        self._due_ms = due_ms
        self._key = key
        self._data = data

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._due_ms

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes:
        return self._data

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return _CREATE_TIME, self._due_ms

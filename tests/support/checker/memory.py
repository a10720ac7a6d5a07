"""Reads the logs of the in-memory Kafka directly. The filter is here, not that of the fake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.support.checker.log import Headers, Place, Read, Record, TopicFacts

if TYPE_CHECKING:
    from pipeline.testing.memory_broker import MemoryBroker
    from pipeline.testing.memory_log import MemoryRecord, PartitionLog

__all__ = ["MemoryLog"]


class MemoryLog:
    """`Log` of a `MemoryBroker`. Injected faults and stale answers have no effect on it."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def topics(self) -> Mapping[str, TopicFacts]:
        with self._broker._lock:
            return {
                name: TopicFacts(topic.topic_id, len(topic.partitions))
                for name, topic in self._broker._topics.items()
            }

    def read(self, starts: Mapping[Place, int]) -> Mapping[Place, Read]:
        with self._broker._lock:
            topics = self._broker._topics
            return {
                place: _read(topics[place.topic].partitions[place.partition], start)
                for place, start in starts.items()
                if place.topic in topics and place.partition < len(topics[place.topic].partitions)
            }


def _headers(record: MemoryRecord) -> Headers:
    """The headers whose names are text. No reader can see the others."""
    written: Any = record._torn.headers if record._torn is not None else record.headers() or ()
    return tuple((name, value) for name, value in written if isinstance(name, str))


def _read(log: PartitionLog, start: int) -> Read:
    """The committed records before the first open transaction, and whether there are more after it."""
    begin, records = log.start, []
    end = begin + len(log.entries)
    stable_end, hidden = end, False
    for offset in range(max(start, begin), end):
        record, transaction = log.entries[offset - begin]
        outcome = "committed" if transaction is None else transaction.outcome.value
        if outcome == "open":
            stable_end = min(stable_end, offset)
        elif outcome == "committed" and record is not None:
            if offset > stable_end:
                hidden = True
                break
            records.append(Record(record.offset(), record.key(), record.value(), _headers(record)))
    return Read(records, begin, stable_end, end, hidden)

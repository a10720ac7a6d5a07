"""The answers of a stale leader: `StaleLeader` shows an in-memory cluster as it was at an earlier time.

A broker that has lost its controllers still answers Metadata, ListOffsets and Fetch as if it were the leader. Its
answers are correct but outdated: its high watermark does not advance, because no follower fetches from it. All records
below the high watermark are in the log of the new leader, too. It does not confirm writes.
(Kafka's replication protocol; KIP-101.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.core.names import TopicPartition
from pipeline.ports import TopicInfo

__all__ = ["StaleLeader"]

Bounds = tuple[int, int, int]


class StaleLeader:
    """The cluster as it was when this object was created. `answers` decides for each new client whether it is used."""

    def __init__(
        self,
        topics: Mapping[str, TopicInfo],
        bounds: Mapping[TopicPartition, Bounds],
        answers: Callable[[], bool],
    ) -> None:
        self._topics = dict(topics)
        self._bounds = dict(bounds)
        self.answers = answers
        self.over = False  # whether its controllers are reachable again, so that its answers are current

    def chosen(self) -> bool:
        """Whether the client that is being opened asks this broker."""
        return not self.over and self.answers()

    def describe(self, topic: str, now: TopicInfo | None) -> TopicInfo | None:
        """The topic as this broker knows it. `now`: its current description."""
        return now if self.over else self._topics.get(topic)

    def bounds(self, partition: TopicPartition, now: Bounds) -> Bounds | None:
        """Start, stable end and end as this broker knows them; None if it does not know the partition."""
        if self.over:
            return now
        then = self._bounds.get(partition)
        if then is None:
            return None
        start, stable_end, end = then
        return max(start, now[0]), min(stable_end, now[1]), min(end, now[2])

"""What a stale leader answers: `StaleLeader`, a view of an in-memory cluster as of an earlier moment.

A broker that has lost its controllers keeps answering Metadata, ListOffsets and Fetch as if it were still the leader.
Its answers are true but old: its high watermark does not advance, because no follower fetches from it, and everything
below it is in the log of the leader that was elected since. It confirms no write. (Kafka's replication protocol;
KIP-101.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.core.names import TopicPartition
from pipeline.ports import TopicInfo

__all__ = ["StaleLeader"]

Bounds = tuple[int, int, int]


class StaleLeader:
    """Answers as of the moment it was made. `answers` decides, client by client, whether this one asks it."""

    def __init__(
        self,
        topics: Mapping[str, TopicInfo],
        bounds: Mapping[TopicPartition, Bounds],
        answers: Callable[[], bool],
    ) -> None:
        self._topics = dict(topics)
        self._bounds = dict(bounds)
        self.answers = answers
        self.over = False  # its controllers are reachable again, and it answers like any other broker

    def chosen(self) -> bool:
        """Whether the client that is being opened asks this broker."""
        return not self.over and self.answers()

    def describe(self, topic: str, now: TopicInfo | None) -> TopicInfo | None:
        """The topic as this broker knows it; `now`: as it is."""
        return now if self.over else self._topics.get(topic)

    def bounds(self, partition: TopicPartition, now: Bounds) -> Bounds | None:
        """Start, stable end and end as this broker knows them; None where it does not know the partition."""
        if self.over:
            return now
        then = self._bounds.get(partition)
        if then is None:
            return None
        start, stable_end, end = then
        return max(start, now[0]), min(stable_end, now[1]), min(end, now[2])

"""What keeps a shadow app apart from the live one: `BoundedSources` and `ShadowProducers`, around the real adapters.

Both apps read the same input topics. The shadow app has another name, and with it other consumer groups, transactional
ids and journals. Beyond that:

    BoundedSources    the shadow app gets no record at or after the end of its replay
    ShadowProducers   what a handler sends to a topic goes to the shadow of that topic. A record for any topic that is
                      not the shadow app's own is refused before it reaches the client
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from pipeline.core.names import JOURNAL_READER, TopicPartition
from pipeline.drills.shadow_spec import ShadowSpec
from pipeline.errors import InvariantError
from pipeline.ports import Output, Polled, Record, Source, Sources, TransactionalClient, TransactionalClients

__all__ = ["BoundedSources", "ShadowProducers"]


class BoundedSources:
    """`ports.Sources` whose partitions end where the replay ends."""

    def __init__(self, inner: Sources, spec: ShadowSpec) -> None:
        self._inner = inner
        self._spec = spec

    def open(self, consumer_group: str, partitions: int = 0) -> Source:
        """The input of a group of the shadow app. The worker's own notes do not end."""
        if consumer_group == JOURNAL_READER:
            return self._inner.open(consumer_group, partitions)
        group = consumer_group.removeprefix(f"{self._spec.shadow}.")
        limits: dict[TopicPartition, int] = {}
        boundaries: dict[TopicPartition, Sequence[int]] = {}
        for task in self._spec.tasks:
            if task.group == group:
                for name, end in task.end.items():
                    limits[task.inputs.place(name)] = end
                    boundaries[task.inputs.place(name)] = task.boundaries.get(name, ())
        return _BoundedSource(self._inner.open(consumer_group, partitions), limits, boundaries)


class _BoundedSource:
    """`ports.Source`. Gives out records only up to a position at which the live task has committed.

    `limits`: the first offset that is not given out; a partition without one gives out nothing.
    """

    def __init__(
        self,
        inner: Source,
        limits: Mapping[TopicPartition, int],
        boundaries: Mapping[TopicPartition, Sequence[int]],
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._boundaries = boundaries
        self._held: dict[TopicPartition, list[Record]] = {}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._inner.assign(positions)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        gone = list(partitions)
        for partition in gone:
            self._held.pop(partition, None)
        self._inner.unassign(gone)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """As the inner source, without the records from the end on."""
        polled = self._inner.poll(max_records, timeout_s)
        ready: list[Record] = []
        for partition, records in _by_partition(polled.records).items():
            limit = self._limits.get(partition, 0)
            held = self._held.setdefault(partition, [])
            held += [record for record in records if record.offset() < limit]
            given = self._complete(partition, held)
            ready += held[:given]
            del held[:given]
        return Polled(ready, polled.failures)

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        for partition in positions:
            self._held.pop(partition, None)
        self._inner.rewind(positions)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._inner.pause(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._inner.resume(partitions)

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """As the inner source."""
        return self._inner.bounds(partition)

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        self._inner.mirror(positions)

    def close(self) -> None:
        self._inner.close()

    def _complete(self, partition: TopicPartition, held: Sequence[Record]) -> int:
        """How many of the held records are below the last boundary that they reach."""
        boundaries = self._boundaries.get(partition, ())
        if not held or not boundaries:
            return len(held)
        reached = bisect_right(boundaries, held[-1].offset() + 1)
        if not reached:  # before the first entry that the journal still has
            return len(held)
        last = boundaries[reached - 1]
        return next((n for n, record in enumerate(held) if record.offset() >= last), len(held))


def _by_partition(records: Sequence[Record]) -> dict[TopicPartition, list[Record]]:
    found: dict[TopicPartition, list[Record]] = {}
    for record in records:
        found.setdefault(TopicPartition(record.topic(), record.partition()), []).append(record)
    return found


class ShadowProducers:
    """`ports.TransactionalClients` that write only to topics of the shadow app."""

    def __init__(self, inner: TransactionalClients, spec: ShadowSpec) -> None:
        self._inner = inner
        self._spec = spec

    def open(self, transactional_id: str) -> TransactionalClient:
        """A producer of the shadow app. Raises InvariantError for a transactional id of another app."""
        prefix = f"{self._spec.shadow}."
        if not transactional_id.startswith(prefix):
            raise InvariantError(f"a shadow app would use the transactional id {transactional_id}")
        return _ShadowProducer(self._inner.open(transactional_id), self._spec)

    def learn(self, message_bytes: Mapping[str, int]) -> None:
        """The limits of the live topics are those of their shadows."""
        outputs = self._spec.outputs
        self._inner.learn({outputs.get(topic, topic): limit for topic, limit in message_bytes.items()})


class _ShadowProducer:
    """`ports.TransactionalClient`."""

    def __init__(self, inner: TransactionalClient, spec: ShadowSpec) -> None:
        self._inner = inner
        self._outputs = spec.outputs
        self._own = f"{spec.shadow}."

    def init(self) -> None:
        self._inner.init()

    def begin(self) -> None:
        self._inner.begin()

    def send(self, outputs: Sequence[Output]) -> None:
        self._inner.send([self._redirected(*output) for output in outputs])

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        if not journal.topic.startswith(self._own):
            raise InvariantError(f"a shadow app would write to the journal {journal}")
        self._inner.append(journal, chunks, key)

    def flush(self) -> int:
        return self._inner.flush()

    def appended_at(self) -> Mapping[TopicPartition, int]:
        return self._inner.appended_at()

    def commit(self, timeout_s: float | None = None) -> None:
        self._inner.commit(timeout_s)

    def abort(self, timeout_s: float | None = None) -> None:
        self._inner.abort(timeout_s)

    def close(self) -> None:
        self._inner.close()

    def _redirected(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Output:
        if topic.startswith(self._own):  # its dead letters
            return Output(topic, key, value, timestamp_ms, headers)
        shadow = self._outputs.get(topic)
        if shadow is None:
            raise InvariantError(f"a shadow app would write to topic {topic}")
        return Output(shadow, key, value, timestamp_ms, headers)

"""The order in which a copy reads the records of a topic: `merged` within a pass, and `era_of` for the pass.

`merged` merges partitions, up to fixed offsets, into one stream in the order of the timestamps. Records of one
partition keep their order, whatever their timestamps are. Memory is bounded: a partition that is ahead of the others is
paused.

`era_of` tells whether a record was written before or after its topic got more partitions. The partition of a key is its
hash modulo the number of partitions. If the key moves, it has records in two partitions: in the old one until its
producers learn of the change, and then in the new one. Its records are in order if all records of the old partition
come first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from heapq import heapify, heappop, heapreplace

from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import UnreachableError
from pipeline.ops.reading import NOTHING_ARRIVES
from pipeline.ports import Clock, Record, Source

__all__ = ["Era", "era_of", "merged"]

_POLL_RECORDS = 4_000
_POLL_S = 0.2
_AHEAD = 4_000  # pause a partition with this many waiting records
_SILENCE_S = 60.0

_Waiting = dict[TopicPartition, deque[Record]]


def merged(
    source: Source,
    clock: Clock,
    starts: Mapping[TopicPartition, int],
    lasts: Mapping[TopicPartition, int],
) -> Iterator[Record]:
    """Records of each partition of `lasts`, from its start offset up to and including its last offset.

    Raises the error of a partition that cannot be read, and UnreachableError if no record arrives for 60 s.
    """
    waiting: _Waiting = {partition: deque() for partition in lasts}
    unread = set(lasts)
    paused: set[TopicPartition] = set()
    source.assign({partition: starts[partition] for partition in lasts})
    heard_s = clock.monotonic_s()
    while unread:
        polled = source.poll(_POLL_RECORDS, _POLL_S)
        for failure in polled.failures:
            raise failure.error
        if polled.records:
            heard_s = clock.monotonic_s()
        elif clock.monotonic_s() - heard_s > _SILENCE_S:
            due = ", ".join(sorted(map(str, unread))[:3])
            raise UnreachableError(
                f"no record arrived for {_SILENCE_S:.0f} s, before the end of {due}", hint=NOTHING_ARRIVES
            )
        for record in polled.records:
            partition = TopicPartition(record.topic(), record.partition())
            if partition not in unread:
                continue
            if record.offset() <= lasts[partition]:
                waiting[partition].append(record)
            # It is greater if compaction has removed the last record meanwhile.
            if record.offset() >= lasts[partition]:
                unread.discard(partition)
        yield from _while_known(waiting, unread)
        ahead = {p for p in unread if len(waiting[p]) >= _AHEAD}
        source.pause(ahead - paused)
        source.resume(paused - ahead)
        paused = ahead


def _while_known(waiting: _Waiting, unread: set[TopicPartition]) -> Iterator[Record]:
    """The oldest records, until a partition might still deliver an older one."""
    if any(not waiting[partition] for partition in unread):
        return
    heads = [(queue[0].timestamp()[1], partition) for partition, queue in waiting.items() if queue]
    heapify(heads)
    while heads:
        partition = heads[0][1]
        queue = waiting[partition]
        yield queue.popleft()
        if queue:
            heapreplace(heads, (queue[0].timestamp()[1], partition))
        elif partition in unread:
            return
        else:
            heappop(heads)


class Era(Enum):
    """When a record was written.

    BEFORE: it can be copied in the first pass. AFTER: it must follow all records of its key that are BEFORE.
    UNKNOWN: its producer uses another partitioner.
    """

    BEFORE = "before"
    AFTER = "after"
    UNKNOWN = "unknown"


def era_of(key: bytes | None, partition: int, before: int, now: int) -> Era:
    """The era of a record in `partition` of a topic that had `before` partitions and has `now`.

    row  key    condition                                        era
    1    any    `before` equals `now`                            BEFORE: no key has moved
    2    none   none                                             BEFORE: the record has no order
    3    some   the partition is the hash modulo `before`        BEFORE (all records of a key that did not move)
    4    some   the partition is the hash modulo `now`, not 3    AFTER
    5    some   neither 3 nor 4                                  UNKNOWN
    """
    if before == now or key is None or partition_of(key, before) == partition:
        return Era.BEFORE
    return Era.AFTER if partition_of(key, now) == partition else Era.UNKNOWN

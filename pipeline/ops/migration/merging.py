"""Merges the partitions of a topic, up to fixed offsets, into one stream in the order of the timestamps.

Records of one partition keep their order, whatever their timestamps are. Memory is bounded: a partition that is ahead
of the others is paused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace

from pipeline.core.names import TopicPartition
from pipeline.errors import UnreachableError
from pipeline.ops.reading import NOTHING_ARRIVES
from pipeline.ports import Clock, Record, Source

__all__ = ["merged"]

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

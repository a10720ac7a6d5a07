"""Reads partitions of a topic up to fixed offsets, as one stream: the oldest record first, as their timestamps say.

Records of one partition keep their order whatever their timestamps. What is held in memory is bounded: a partition
that is ahead of the others is paused.
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
_AHEAD = 4_000  # records of one partition that wait for the others
_SILENCE_S = 60.0

_Waiting = dict[TopicPartition, deque[Record]]


def merged(
    source: Source,
    clock: Clock,
    starts: Mapping[TopicPartition, int],
    lasts: Mapping[TopicPartition, int],
) -> Iterator[Record]:
    """Records of each partition of `lasts`, from its start up to and including its last offset.

    Raises what makes a partition unreadable, and UnreachableError when records are due and none comes.
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
                f"nothing arrives any more, and {due} is not read to its end", hint=NOTHING_ARRIVES
            )
        for record in polled.records:
            partition = TopicPartition(record.topic(), record.partition())
            if partition not in unread:
                continue
            if record.offset() <= lasts[partition]:
                waiting[partition].append(record)
            if record.offset() >= lasts[partition]:  # above it where compaction has removed it meanwhile
                unread.discard(partition)
        yield from _while_known(waiting, unread)
        ahead = {p for p in unread if len(waiting[p]) >= _AHEAD}
        source.pause(ahead - paused)
        source.resume(paused - ahead)
        paused = ahead


def _while_known(waiting: _Waiting, unread: set[TopicPartition]) -> Iterator[Record]:
    """The oldest records, for as long as no partition may hold an older one that has not arrived."""
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

"""Proof that a read of a journal was current: a broker that lost its controllers answers as if it still led.

A read counts as current only if a write after the same fence proves it. The leader of a partition confirms a write
(acks=all) only once every in-sync replica has it, which a deposed leader cannot reach. So the offset of our own
record comes from the real leader, and everything committed before it is below it:

- the first transaction after a fence calls `holds_records`, for the range between the end that was read and that
  offset.
- `write_barrier` writes one record and aborts it, where there is nothing to commit: before a verdict that stops a
  task, sets a state aside, or answers "there is nothing to do".

Everything a deposed broker shows below its high watermark is in the real leader's log as well. So an entry that was
read exists. It does not follow that there is no further entry. (Kafka's replication protocol: the high watermark
advances only with the in-sync replicas, and a new leader is one of them.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from pipeline.core.names import TopicPartition
from pipeline.errors import RetriableError, StaleReadError, UnreachableError
from pipeline.ports import Clock, Deadline, JournalReader, TransactionalClient

__all__ = ["BARRIER", "RENEW_SHARE", "holds_records", "write_barrier"]

# librdkafka resends EndTxn after its back-off (jitter 20 %) and reports one clean end; one that took this share of the
# back-off may have been sent twice, and the late request could end the next transaction.
RENEW_SHARE = 0.7

BARRIER = b"barrier"  # key and value of a record that is aborted: compacted topics need a key
_POLL_S = 0.1


def holds_records(
    place: TopicPartition,
    start: int,
    end: int,
    *,
    journals: Callable[[], JournalReader],
    clock: Clock,
    timeout_s: float,
) -> bool:
    """Whether [start, end) holds a committed record. `end` is the offset that the leader gave to our own record.

    Each look is made by a new client, which may find another broker. Raises StaleReadError when none sees the
    partition up to `end` within `timeout_s`.
    """
    if start >= end:
        return False
    deadline = Deadline(clock, timeout_s, _POLL_S)
    while True:
        seen = -1
        try:
            with closing(journals()) as reader:
                seen = reader.bounds(place).stable_end
                if seen >= end:
                    return next(iter(reader.read(place, start, end)), None) is not None
        except (RetriableError, UnreachableError):
            pass  # no look yet
        if not deadline.pause():
            raise StaleReadError(
                f"{place}: readers see it end at {seen}, below the offset {end} that its leader gave to our own record",
                hint="a broker may have lost its controllers and still answer: check the brokers, and restart it",
            )


def write_barrier(
    producer: TransactionalClient, places: Iterable[TopicPartition], clock: Clock, retry_backoff_ms: int
) -> tuple[Mapping[TopicPartition, int], bool]:
    """Where the leaders of `places` say that they end, behind the fence of `producer`; and whether it may be used on.

    1. Begin, append a record to each, flush: the offsets are the leaders'.
    2. Abort, timed alone: a slow abort may have been sent twice, so the producer must be renewed.

    A crash leaves an open transaction, which the next fence aborts; no committed reader ever sees its records. Raises
    FencedError, AbortableError, UnknownOutcomeError, UnreachableError.
    """
    producer.begin()
    for place in places:
        producer.append(place, [BARRIER], BARRIER)
    producer.flush()
    ends = producer.appended_at()
    started = clock.monotonic_s()
    producer.abort()
    return ends, (clock.monotonic_s() - started) * 1000 < RENEW_SHARE * retry_backoff_ms

"""Proves that a read was current, because a stale leader answers as if it were still the leader.

A read counts as current only if a write after the same fence proves it. The leader of a partition confirms a write
(acks=all) only once every in-sync replica has it, which a stale leader cannot reach. So the offset of our own
record comes from the real leader, and everything committed before it is below it:

- the first transaction after a fence calls `prove_read`, for the range between the end that was read and that offset.
- a barrier writes one record and aborts it (`TransactionEngine.barrier`), where there is nothing to commit: before a
  verdict that stops a task, sets a state aside, or answers "there is nothing to do".

Every record that a stale leader returns below its high watermark is also in the real leader's log. So an entry that
was read exists, but there may be later entries. (Kafka's replication protocol: the high watermark
advances only with the in-sync replicas, and a new leader is one of them.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from pipeline.core.names import TopicPartition
from pipeline.errors import AbortableError, PipelineError, RetriableError, StaleReadError, UnreachableError
from pipeline.ports import Clock, Deadline, JournalReader

__all__ = ["BARRIER", "prove_read"]

BARRIER = b"barrier"  # key and value of a record that is aborted: compacted topics need a key
_POLL_S = 0.1


def prove_read(
    partition: TopicPartition,
    end_read: int,
    offset: int,
    *,
    journals: Callable[[], JournalReader],
    clock: Clock,
    timeout_s: float,
) -> None:
    """Prove, in an open transaction, that `partition` ended at `end_read` when that was read after the same fence.

    `offset`: the leader's offset of our own record. Raises AbortableError if a record was committed in between, or if
    no reader sees the partition up to that offset within `timeout_s`.
    """
    try:
        unseen = _holds_records(
            partition, end_read, offset, journals=journals, clock=clock, timeout_s=timeout_s
        )
    except (StaleReadError, UnreachableError) as error:
        raise AbortableError(error.message, hint=error.hint) from error
    if unseen:
        raise AbortableError(
            f"{partition}: records were committed between offset {end_read}, which a broker reported as the end, and "
            f"{offset}: that broker is a stale leader"
        )


def _holds_records(
    partition: TopicPartition,
    start: int,
    end: int,
    *,
    journals: Callable[[], JournalReader],
    clock: Clock,
    timeout_s: float,
) -> bool:
    """Whether [start, end) contains a committed record. `end`: the leader's offset of our own record.

    Each attempt uses a new client, which may connect to another broker. Raises StaleReadError if none sees the
    partition up to `end` within `timeout_s`, UnreachableError if none gets an answer.
    """
    if start >= end:
        return False
    deadline = Deadline(clock, timeout_s, _POLL_S)
    while True:
        seen = -1
        unanswered: PipelineError | None = None
        try:
            with closing(journals()) as reader:
                seen = reader.bounds(partition).stable_end
                if seen >= end:
                    return next(iter(reader.read(partition, start, end)), None) is not None
        except (RetriableError, UnreachableError) as error:
            unanswered = error
        if deadline.pause():
            continue
        if unanswered is not None:
            raise UnreachableError(
                f"{partition}: no broker answered a read of records below offset {end} within {timeout_s:.0f} s: "
                f"{unanswered.message}",
                hint=unanswered.hint or "check the brokers",
            )
        raise StaleReadError(
            f"{partition}: readers see it end at {seen}, below the offset {end} that its leader gave to our own record",
            hint="a broker may be a stale leader, without a connection to the controllers: check the brokers, and "
            "restart it",
        )

"""Reads the committed records of a topic for commands, up to its end or without a limit. Uses ports only.

The end is exact. The marker of a transaction occupies an offset, so the last record is rarely at the end offset. Its
offset is looked up first, and reading stops there, however slowly the broker answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import TypeVar

from pipeline.core.names import TopicPartition
from pipeline.errors import RetriableError, StaleReadError, UnreachableError
from pipeline.ports import Clock, Deadline, JournalBounds, JournalReader, Record, Source, TopicInfo

__all__ = [
    "NOTHING_ARRIVES",
    "committed_records",
    "last_committed",
    "read_settled",
    "read_topic",
    "seeing",
    "settled_bounds",
]

T = TypeVar("T")

NOTHING_ARRIVES = "check that every broker is running, and run the command again"

_POLL_RECORDS = 2_000
_POLL_S = 0.5
_SILENCE_S = 30.0  # without a record, before the end is reached
_FIRST_SPAN = 64
_STABLE_S = 60.0  # longer than the transaction timeout of a producer that died
_LOOK_S = 0.1
_ANSWER_S = 5.0


def last_committed(reader: JournalReader, partition: TopicPartition, start: int, end: int) -> int | None:
    """The offset of the last committed record in [start, end); None if there is none.

    Reads backwards from the end, in growing ranges, while it finds only markers and aborted records.
    """
    span = _FIRST_SPAN
    while end > start:
        begin = max(start, end - span)
        last: int | None = None
        for offset, _ in reader.read(partition, begin, end):
            last = offset
        if last is not None:
            return last
        end, span = begin, span * 4
    return None


def read_topic(
    source: Source,
    clock: Clock,
    starts: Mapping[TopicPartition, int],
    lasts: Mapping[TopicPartition, int] | None,
) -> Iterator[Record]:
    """Records from `starts` on, in order per partition, up to and including the offsets `lasts`.

    Without `lasts` the iterator does not end. Raises the error of a partition that cannot be read, and UnreachableError
    if no record arrives for 30 s before the end.
    """
    left = dict(lasts) if lasts is not None else None
    source.assign(
        {partition: start for partition, start in starts.items() if left is None or partition in left}
    )
    heard_s = clock.monotonic_s()
    while left is None or left:
        polled = source.poll(_POLL_RECORDS, _POLL_S)
        for failure in polled.failures:
            raise failure.error
        if polled.records:
            heard_s = clock.monotonic_s()
        elif left is not None and clock.monotonic_s() - heard_s > _SILENCE_S:
            raise UnreachableError(
                f"no record arrived for {_SILENCE_S:.0f} s, before the end of {', '.join(map(str, left))}",
                hint=NOTHING_ARRIVES,
            )
        for record in polled.records:
            if left is None:
                yield record
                continue
            partition = TopicPartition(record.topic(), record.partition())
            last = left.get(partition)
            if last is None:
                continue  # written after the end was looked up
            if record.offset() >= last:
                del left[partition]
            if record.offset() <= last:
                yield record


def committed_records(
    topic: TopicInfo,
    reader: JournalReader,
    source: Source,
    clock: Clock,
    within: Mapping[int, range] | None = None,
) -> Iterator[Record]:
    """All committed records of a topic up to the end that it has now, in order per partition.

    `within`: the offsets to read, by partition; None for all.
    """
    starts, lasts = {}, {}
    for number in range(topic.partitions) if within is None else within:
        partition = TopicPartition(topic.name, number)
        bounds = reader.bounds(partition)
        wanted = range(bounds.stable_end) if within is None else within[number]
        starts[partition] = start = max(bounds.start, wanted.start)
        last = last_committed(reader, partition, start, min(bounds.stable_end, wanted.stop))
        if last is not None:
            lasts[partition] = last
    return read_topic(source, clock, starts, lasts)


def settled_bounds(
    reader: JournalReader, partition: TopicPartition, clock: Clock, at_least: int = 0
) -> JournalBounds:
    """The bounds of a partition, after all transactions before the end that it has now have ended.

    A read that stops at the stable end would miss one's own last commit if another producer's transaction before it is
    open. `at_least`: an end offset that the partition's leader has reported. Raises UnreachableError if a transaction
    stays open, and StaleReadError if the broker that answers reports an end below `at_least`.
    """
    bounds = reader.bounds(partition)
    target = bounds.end
    if target < at_least:
        raise StaleReadError(
            f"{partition} ends at offset {at_least} or later, but the broker that answered reports the end {target}"
        )
    deadline = Deadline(clock, _STABLE_S, _LOOK_S)
    while bounds.stable_end < target:
        if not deadline.pause():
            raise UnreachableError(
                f"{partition} cannot be read to its end: it has had an open transaction for {_STABLE_S:.0f} s",
                hint="run the command again; if the error remains, see runbooks/hanging-transaction.md",
            )
        bounds = reader.bounds(partition)
    return JournalBounds(bounds.start, target, target)


def seeing(
    journals: Callable[[], JournalReader],
    known_ends: Callable[[], Mapping[TopicPartition, int]],
    clock: Clock,
) -> Callable[[], JournalReader]:
    """Opens readers that can read each partition at least up to its known end.

    A reader that cannot is closed, and a new one is opened, which may connect to another broker. Raises StaleReadError
    after 60 s.
    """

    def opened() -> JournalReader:
        deadline, ends = Deadline(clock, _STABLE_S, _LOOK_S), known_ends()
        while True:
            reader = journals()
            try:
                found = reader.stable_ends(list(ends)) if ends else {}
                short = [partition for partition, end in ends.items() if found[partition] < end]
                if not short:
                    return reader
                if deadline.has_passed():
                    raise StaleReadError(
                        f"{short[0]} ends at offset {ends[short[0]]} or later, but can be read only up to offset "
                        f"{found[short[0]]}",
                        hint="a transaction is open, or a stale leader still answers; run the command again",
                    )
            except BaseException:
                reader.close()
                raise
            reader.close()
            deadline.pause()

    return opened


def read_settled(
    partition: TopicPartition,
    fold: Callable[[Iterator[tuple[int, bytes]]], T],
    *,
    journals: Callable[[], JournalReader],
    clock: Clock,
    at_least: int = 0,
) -> T:
    """Call `fold` with all committed records and their offsets, up to the end that the partition has now.

    Starts again with a new client, which may connect to another broker, if the broker that answers reports an end below
    `at_least`. Raises UnreachableError, StaleReadError.
    """
    deadline = Deadline(clock, _STABLE_S, _LOOK_S)
    while True:
        try:
            with closing(journals()) as reader:
                bounds = settled_bounds(reader, partition, clock, at_least)
                return fold(reader.read(partition, bounds.start, bounds.end))
        except RetriableError:
            if not deadline.pause():
                raise
        except UnreachableError:
            # An end is known only if the leader has answered recently, so it may be reachable again soon.
            if not at_least or not deadline.pause(_ANSWER_S):
                raise

"""Reads committed records of a topic for people: over ports, up to its end or without a limit.

The end is exact. A transaction's marker occupies an offset, so the last record is rarely at the end; its
offset is looked up first, and reading stops there however long the broker takes to answer.
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

NOTHING_ARRIVES = "check that every broker runs, and run the command again"

_POLL_RECORDS = 2_000
_POLL_S = 0.5
_SILENCE_S = 30.0  # with records still to come
_FIRST_SPAN = 64
_STABLE_S = 60.0  # longer than the transaction of a producer that died lives on
_LOOK_S = 0.1
_ANSWER_S = 5.0


def last_committed(reader: JournalReader, partition: TopicPartition, start: int, end: int) -> int | None:
    """The offset of the last committed record in [start, end); None when there is none.

    Looks at the end first, and further back only while it finds nothing but markers and aborted records.
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

    Without `lasts` it does not end. Raises what makes a partition unreadable, and UnreachableError when
    records are still to come and none does.
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
                f"nothing arrives any more, and {', '.join(map(str, left))} is not read to its end",
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
    """All committed records of a topic up to its end as of now, in order per partition.

    `within`: offsets by partition; only these, where it is given.
    """
    starts, lasts = {}, {}
    for number in range(topic.partitions) if within is None else within:
        place = TopicPartition(topic.name, number)
        bounds = reader.bounds(place)
        wanted = range(bounds.stable_end) if within is None else within[number]
        starts[place] = start = max(bounds.start, wanted.start)
        last = last_committed(reader, place, start, min(bounds.stable_end, wanted.stop))
        if last is not None:
            lasts[place] = last
    return read_topic(source, clock, starts, lasts)


def settled_bounds(
    reader: JournalReader, partition: TopicPartition, clock: Clock, at_least: int = 0
) -> JournalBounds:
    """The bounds, once nothing before the end as of now is open any more.

    What is read only up to the stable end lacks one's own last commit behind another's open transaction. `at_least`:
    where the partition's leader is known to be. Raises UnreachableError when a transaction stays open, and
    StaleReadError when the broker that answers is not that far.
    """
    bounds = reader.bounds(partition)
    target = bounds.end
    if target < at_least:
        raise StaleReadError(
            f"{partition} is at offset {at_least} or beyond; the broker that was asked sees it end at {target}"
        )
    deadline = Deadline(clock, _STABLE_S, _LOOK_S)
    while bounds.stable_end < target:
        if not deadline.pause():
            raise UnreachableError(
                f"{partition.topic} has had an open transaction for {_STABLE_S:.0f} s; it cannot be read to its end",
                hint="try again; if it stays: runbooks/hanging-transaction.md",
            )
        bounds = reader.bounds(partition)
    return JournalBounds(bounds.start, target, target)


def seeing(
    journals: Callable[[], JournalReader],
    known_ends: Callable[[], Mapping[TopicPartition, int]],
    clock: Clock,
) -> Callable[[], JournalReader]:
    """Opens readers that see partitions up to their known ends at least.

    One that does not is closed for another, which may find another broker. Raises StaleReadError when none does.
    """

    def opened() -> JournalReader:
        deadline, ends = Deadline(clock, _STABLE_S, _LOOK_S), known_ends()
        while True:
            reader = journals()
            try:
                found = reader.stable_ends(list(ends)) if ends else {}
                short = [place for place, end in ends.items() if found[place] < end]
                if not short:
                    return reader
                if deadline.has_passed():
                    raise StaleReadError(
                        f"{short[0]} is at offset {ends[short[0]]} or beyond; readers see it end at {found[short[0]]}",
                        hint="a transaction is open, or a broker has lost its controllers and still answers: try again",
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
    """`fold` of all committed records, each with its offset, up to the settled end as of now.

    Begun again, by a new client that may find another broker, when the one that is asked knows less than `at_least`.
    Raises UnreachableError, StaleReadError.
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
            # Where an end is known, its leader has answered a moment ago.
            if not at_least or not deadline.pause(_ANSWER_S):
                raise

"""Finds what a commit wrote to Kafka: the record that equals an output, and the dead letter of a record.

The journal does not list outputs. An output has the timestamp of its record unless the handler chose another one, and
its key decides its partition. So the search reads its partition from the first record with that timestamp on, and
compares at most `SEARCHED` records. For topics with the time of the broker, it begins shortly before the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.dead_letters import Letter, read_letter
from pipeline.core.headers import readable_headers
from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.ops.history.record_commits import READER
from pipeline.ops.reading import committed_records
from pipeline.ports import Output, Record, TopicInfo
from pipeline.runtime.environment import Environment

__all__ = ["SEARCHED", "CommittedLetter", "CommittedOutput", "find_letter", "find_output"]

SEARCHED = 100_000
_CLOCK_SLACK_MS = 600_000  # between the clocks of workers and brokers


@dataclass(frozen=True, slots=True)
class CommittedOutput:
    """A record in an output topic. `equal`: whether key, value and headers are those of the output.

    Otherwise it is the first one with the same key and timestamp.
    """

    partition: int
    offset: int
    value: bytes | None
    equal: bool


@dataclass(frozen=True, slots=True)
class CommittedLetter:
    """A dead letter in its topic."""

    partition: int
    offset: int
    letter: Letter


def find_output(
    output: Output, commit_ms: int, info: TopicInfo, environment: Environment
) -> CommittedOutput | None:
    """The committed record that equals an output; otherwise one with the same key and timestamp; None if there is none.

    `commit_ms`: the time of the commit. Raises UnreachableError.
    """
    broker_time = info.config.get("message.timestamp.type") == "LogAppendTime"
    wanted = list(output.headers)
    similar: CommittedOutput | None = None
    for record in _candidates(output, commit_ms, info, environment):
        if record.key() != output.key:
            continue
        if not broker_time and output.timestamp_ms and record.timestamp()[1] != output.timestamp_ms:
            continue
        equal = record.value() == output.value and list(readable_headers(record)[0]) == wanted
        found = CommittedOutput(record.partition(), record.offset(), record.value(), equal)
        if equal:
            return found
        similar = similar or found
    return similar


def find_letter(
    output: Output,
    belongs: Callable[[Letter], bool],
    commit_ms: int,
    info: TopicInfo,
    environment: Environment,
) -> CommittedLetter | None:
    """The committed dead letter of a record that `belongs` accepts, the one closest to the commit; None if none.

    `output`: where the letter would be: its topic, the record's key and timestamp. Raises UnreachableError.
    """
    best: CommittedLetter | None = None
    for record in _candidates(output, commit_ms, info, environment):
        read = read_letter(readable_headers(record)[0]) if record.key() == output.key else None
        if read is None or not belongs(read[0]):
            continue
        found = CommittedLetter(record.partition(), record.offset(), read[0])
        if best is None or _distance(found, commit_ms) < _distance(best, commit_ms):
            best = found
    return best


def _distance(found: CommittedLetter, commit_ms: int) -> int:
    return abs(found.letter.failed_ms - commit_ms)


def _candidates(
    output: Output, commit_ms: int, info: TopicInfo, environment: Environment
) -> Iterator[Record]:
    """The committed records that may be the output, partition by partition, at most SEARCHED offsets of each."""
    own_time = info.config.get("message.timestamp.type") != "LogAppendTime" and output.timestamp_ms > 0
    since_ms = output.timestamp_ms if own_time else max(0, commit_ms - _CLOCK_SLACK_MS)
    numbers = range(info.partitions) if output.key is None else [partition_of(output.key, info.partitions)]
    with (
        closing(environment.journals()) as reader,
        closing(environment.sources.open(READER)) as source,
    ):
        for number in numbers:
            start = reader.offset_at(TopicPartition(info.name, number), since_ms)
            within = {number: range(start, start + SEARCHED)}
            yield from committed_records(info, reader, source, environment.clock, within)

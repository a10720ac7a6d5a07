"""The number of open records, stored with the marks: `OpenCount`.

A command that reads all letters of a group counts the open records, up to the letter that each task's last entry
names, and writes that tally in the transaction of its marks. A command that reads only some letters subtracts the
records that it marks from the previous tally. `core.dead_letter_count` describes how a status adds the letters
that tasks have written since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec

from pipeline.core.dead_letter_count import (
    LetterCount,
    LetterTally,
    encode_tally,
    open_letters,
)
from pipeline.core.names import GroupId, TaskId, TopicPartition, letter_counts_topic
from pipeline.ops.dead_letters.marks import Marks
from pipeline.ops.dead_letters.records import FailedRecord, State
from pipeline.ports import JournalReader, Output, TopicInfo, TopicSpec
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.runtime.environment import Environment
from pipeline.runtime.status.app_status import read_tallies

__all__ = ["OpenCount"]

_CONFIG = {"cleanup.policy": "compact"}
_READS_AT_ONCE = 8


class OpenCount:
    """The tally of one group during one command. Call `read_counts` first, then `begin`.

    `topic`: the dead-letter topic.
    """

    def __init__(self, group: GroupId, topic: TopicInfo, environment: Environment) -> None:
        self._group = group
        self._topic = topic
        self._environment = environment
        self._counts: Mapping[int, LetterCount] | None = None  # by task
        self._tasks = 0
        self._tally: LetterTally | None = None
        self._sent: LetterTally | None = None
        self.stale = False  # whether the tally in Kafka differs from the count

    @property
    def needs_all(self) -> bool:
        """Whether all letters must be read, because there is no tally yet."""
        return self._counts is not None and self._tally is None

    @property
    def place(self) -> TopicPartition:
        """The partition of the tally."""
        return TopicPartition(letter_counts_topic(self._group.app), 0)

    def read_counts(self) -> None:
        """Read the counts of the tasks from their last entries. Raises UnreachableError.

        Call it before the barrier in the dead-letter topic, so that the letters of these entries precede the barrier.
        """
        if not self._environment.cluster.describe([self.place.topic]):
            self._environment.cluster.create([TopicSpec(self.place.topic, partitions=1, config=_CONFIG)])
        with closing(self._environment.journals()) as reader:
            self._counts = self._last_counts(reader)

    def begin(self, journals: Callable[[], JournalReader]) -> None:
        """Read the last tally. `journals` opens a reader that reads up to the barrier. Raises UnreachableError."""
        with closing(journals()) as reader:
            tally = read_tallies(self._group.app, reader).get(self._group.group)
            self._tally = tally if tally is not None and tally.topic_id == self._topic.topic_id else None

    def take(self, records: Sequence[FailedRecord], marks: Marks) -> None:
        """Count the open ones of `records`: all failed records of the group, read after `begin`."""
        if self._counts is None:
            return
        counts = {
            number: count for number, count in self._counts.items() if count.topic_id == self._topic.topic_id
        }
        still_open = [record for record in records if record.state(marks) is State.OPEN]
        now_ms = self._environment.clock.wall_ms()
        before = open_letters(self._topic.topic_id, counts, self._tally, now_ms)
        self._tally = LetterTally(
            group=self._group.group,
            topic_id=self._topic.topic_id,
            open=sum(not _is_later(record, counts, self._tasks) for record in still_open),
            counted={number: count.at for number, count in counts.items()},
            wall_ms=now_ms,
        )
        after = open_letters(self._topic.topic_id, counts, self._tally, now_ms)
        self.stale = (before.open, before.whole) != (after.open, after.whole)

    def output(self, closed: int) -> Sequence[Output]:
        """The record of the tally after `closed` open records were marked. Call `committed` after its commit."""
        if self._tally is None:
            return ()
        now_ms = self._environment.clock.wall_ms()
        self._sent = msgspec.structs.replace(self._tally, open=self._tally.open - closed, wall_ms=now_ms)
        key = self._group.group.encode()
        return (Output(self.place.topic, key, encode_tally(self._sent), now_ms),)

    def committed(self) -> None:
        """Use the tally of the last `output` from now on: it was committed."""
        self._tally, self.stale = self._sent or self._tally, False

    def _last_counts(self, reader: JournalReader) -> dict[int, LetterCount]:
        name = self._group.journal_topic
        journal = self._environment.cluster.describe([name]).get(name)
        self._tasks = journal.partitions if journal is not None else 0
        places = [TaskId(*self._group, number).journal for number in range(self._tasks)]
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            found = pool.map(lambda place: last_entry(place, reader), places)
        last = {
            place.partition: entry.entry.letters
            for place, entry in zip(places, found, strict=True)
            if entry is not None
        }
        return {number: count for number, count in last.items() if count is not None}


def _is_later(record: FailedRecord, counts: Mapping[int, LetterCount], tasks: int) -> bool:
    """Whether its newest letter was written after the entry whose count was read. The task counts that letter."""
    count = counts.get(record.partition % tasks) if tasks else None
    return count is not None and record.number > count.at

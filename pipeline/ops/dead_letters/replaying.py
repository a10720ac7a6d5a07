"""Replays dead letters, each exactly once, or marks them as discarded. Uses ports only.

A replay of a letter is a record in `<app>.<group>.replays`, in the partition of the record. Only the group reads that
topic. In the original topic, other groups and apps would handle the record a second time. The protocol:

1. Fence: open the group's transactional producer and call `init`. Of two concurrent replays, the older one cannot
   commit any more. Then write a barrier in the marks, the count and the dead letters: their leaders report where they
   end (`transactions/proof.py`). All later reads reach these offsets.
2. Recall: read the marks of the app up to their current end, which is not before the barrier, after all transactions
   before it have ended.
3. Choose the newest letter of each selected record, if it has no mark (`records`), in order.
4. Commit: begin, send a batch of these letters and a mark for each letter of their records that has none, flush,
   commit.
5. Renew if step 4 failed, if its outcome is unknown, or if the commit was so slow that the client may have sent it
   twice: close, then steps 1 and 2. The mark of the batch's first letter decides. Repeat steps 3 to 5 until no letter
   is left.

| a crash       | leaves                                                              | the next run                  |
|---------------|---------------------------------------------------------------------|-------------------------------|
| before step 4 | no change                                                           | replays all letters           |
| during step 4 | an open transaction, which step 1 aborts unless it was committed    | replays letters without marks |
| after step 4  | letters with their marks                                            | replays the other letters     |

The group handles each record of the topic once, because the topic is one of its inputs. A fenced replay never resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.dead_letters import Replay, encode_replay
from pipeline.core.names import TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, FencedError
from pipeline.ops.dead_letters.letters import Choice, DeadLetter, LetterId, dead_letter_topic, places_of
from pipeline.ops.dead_letters.marks import (
    Marks,
    ReplayMark,
    ensure_marks_topic,
    mark_output,
    marks_place,
    read_marks,
)
from pipeline.ops.dead_letters.open_count import OpenCount
from pipeline.ops.dead_letters.records import FailedRecord, State, failed_records, newest_letters
from pipeline.ops.reading import seeing
from pipeline.ops.transactions import ReceiptTransactions
from pipeline.ports import TopicInfo
from pipeline.runtime.environment import Environment
from pipeline.transactions.engine import TransactionEngine

__all__ = ["Discarder", "Refused", "ReplayReport", "Replayer"]

BATCH_LETTERS = 500
BATCH_BYTES = 4 * 1024 * 1024
_RECORD_BYTES = 256  # what a broker counts in addition to the value
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Refused:
    """A selected letter that cannot be replayed, and the reason."""

    letter: DeadLetter
    reason: str


@dataclass(slots=True)
class ReplayReport:
    """The result of one run.

    `letters`: how many were replayed, one for each record. `before`: how many selected records had been replayed or
    discarded before; `discarded`: how many of these were discarded. `refused`: letters that cannot be replayed.
    """

    letters: int = 0
    before: int = 0
    discarded: int = 0
    refused: list[Refused] = field(default_factory=list)


class Replayer:
    """Replays dead letters of one group, one for each failed record. Use an object once, from one thread.

    `again`: also replay records that were replayed or discarded before.
    """

    def __init__(
        self, group: DeclaredGroup, environment: Environment, retry_backoff_ms: int, *, again: bool = False
    ) -> None:
        self._group = group.id
        self._handled = {binding.topic.name for binding in group.functions}
        self._environment = environment
        self._again = again
        self._letters = dead_letter_topic(self._group, environment.cluster)
        self._prepare()
        self._count = OpenCount(self._group, self._letters, environment)
        self._marks: Marks = {}
        self._records: dict[LetterId, FailedRecord] = {}  # by their newest letters
        self._transactions = ReceiptTransactions(
            self._group.replay_transactional_id,
            [marks_place(self._group), self._count.place, *places_of(self._letters)],
            environment.producers,
            environment.clock,
            retry_backoff_ms,
        )

    def plan(self, choice: Choice, replayed: ReplayReport, most: int | None = None) -> Iterator[DeadLetter]:
        """The letters that `run` would replay now. Adds the other selected records to `replayed`. Changes nothing."""
        self._recall()
        yield from self._chosen(choice, most, replayed)

    def run(
        self, choice: Choice, most: int | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> ReplayReport:
        """Replay the selected letters.

        Args:
            choice: The selection.
            most: The largest number of letters to replay; None for all.
            progress: Called after each commit with the number of letters replayed so far.

        Raises:
            FencedError: Another replay of the group was started.
            UnreachableError: Kafka is unreachable.
            ConfigError: The topic of marks has unsuitable settings.
            CorruptStateError: A mark cannot be read.
        """
        replayed = ReplayReport()
        try:
            ensure_marks_topic(self._group, self._environment.cluster)
            self._count.read_counts()
            self._transactions.fence()  # 1
            environment, transactions = self._environment, self._transactions
            journals = seeing(environment.journals, lambda: transactions.known_ends, environment.clock)
            self._environment = replace(environment, journals=journals)
            self._recall()  # 2
            self._count.begin(self._environment.journals)
            for batch in _batches(self._chosen(choice, most, replayed)):  # 3
                self._commit(batch)  # 4, 5
                replayed.letters += len(batch)
                progress(replayed.letters)
            if self._count.stale:
                self._commit_count()
        except FencedError as error:
            raise FencedError(
                f"this command was stopped: a newer replay of group {self._group.group} was started, or this one was "
                "suspended for too long",
                hint="no dead letter was lost or replayed twice; if no other replay is running, run the same command "
                "again for the remaining ones",
            ) from error
        finally:
            self._transactions.close()
        return replayed

    def _prepare(self) -> None:
        """Raise ConfigError if the topic for replays does not exist."""
        name = self._group.replays_topic
        found = self._environment.cluster.describe([name]).get(name)
        if found is None:
            raise ConfigError(
                f"there is no topic {name}, from which workers read replays",
                hint="first start a worker of this release with a handler that has on_error='dead_letter'",
            )
        self._replays: TopicInfo = found

    def _chosen(self, choice: Choice, most: int | None, replayed: ReplayReport) -> Iterator[DeadLetter]:
        self._records = {}
        everything = self._count.needs_all
        found = failed_records(self._letters, self._group, choice, self._environment, everything=everything)
        if everything or not choice.ids:
            self._count.take(found, self._marks)
        for record in found:
            state = record.state(self._marks)
            if record.meant and (state is State.OPEN or self._again):
                self._records[record.newest] = record
            elif record.meant:
                replayed.before += 1
                replayed.discarded += state is State.DISCARDED
        left = most
        for _, letter in newest_letters(self._letters, self._records.values(), self._environment):
            if left == 0:
                return
            reason = self._refusal(letter)
            if reason is not None:
                replayed.refused.append(Refused(letter, reason))
                continue
            if left is not None:
                left -= 1
            yield letter

    def _refusal(self, found: DeadLetter) -> str | None:
        letter, group = found.letter, self._group
        if letter.app and (letter.app, letter.group) != group:
            return f"it is a dead letter of app {letter.app}, group {letter.group}"
        if letter.origin.topic not in self._handled:
            return f"topic {letter.origin.topic} is no longer an input of group {group.group}: restore its handler"
        if letter.origin.partition >= self._replays.partitions:
            return f"the inputs of group {group.group} have no partition {letter.origin.partition}"
        limit = int(self._replays.config.get("max.message.bytes", "1048588")) - _RECORD_BYTES
        size = len(encode_replay(self._replay(found)))
        if size > limit:
            return (
                f"it has {size} bytes, but topic {self._replays.name} accepts at most {limit}: raise its "
                "max.message.bytes"
            )
        return None

    def _replay(self, found: DeadLetter) -> Replay:
        letter = found.letter
        return Replay(
            topic=letter.origin.topic,
            partition=letter.origin.partition,
            offset=letter.origin.offset,
            timestamp_ms=letter.origin.timestamp_ms,
            key=found.key,
            value=found.value,
            headers=tuple(found.headers),
            letter_partition=found.partition,
            letter_offset=found.offset,
            number=letter.replay + self._times(found) + 1,
            topic_id=letter.topic_id,
        )

    def _times(self, found: DeadLetter) -> int:
        mark = self._marks.get(found.id)
        return mark.times if mark is not None else 0

    def _commit(self, batch: list[DeadLetter]) -> None:
        """Steps 4 and 5, until the batch is committed."""
        before = self._marks.get(batch[0].id)
        marks = self._transactions.write(
            f"{counted(len(batch), 'dead letter')} from {batch[0].name} on",
            receipt=lambda: self._marks_of(batch),
            send=lambda engine, marks: self._send(engine, batch, marks),
            outcome=lambda marks: self._judge(batch[0].id, before, marks),
        )
        self._marks.update(marks)
        self._count.committed()

    def _commit_count(self) -> None:
        """Correct the number of open records if no letter was marked. The next command corrects a failed commit."""
        self._transactions.write(
            "the number of open records",
            receipt=lambda: None,
            send=lambda engine, _: engine.send(self._count.output(0)),
            outcome=lambda _: CommitOutcome.COMMITTED,
        )
        self._count.committed()

    def _judge(
        self, first: LetterId, before: ReplayMark | None, marks: Mapping[LetterId, ReplayMark]
    ) -> CommitOutcome:
        """The outcome of a batch, from the mark of its first letter after the fence."""
        self._recall()
        found = self._marks.get(first)
        if found == marks[first]:
            return CommitOutcome.COMMITTED
        return CommitOutcome.ABORTED if found == before else CommitOutcome.SUPERSEDED

    def _marks_of(self, batch: list[DeadLetter]) -> Mapping[LetterId, ReplayMark]:
        nonce = self._environment.random.token(_NONCE_BYTES).hex()
        return {
            place: self._mark(letter, place, nonce)
            for letter in batch
            for place in self._records[letter.id].ids
            if place == letter.id or place not in self._marks
        }

    def _mark(self, letter: DeadLetter, place: LetterId, nonce: str) -> ReplayMark:
        """The mark of the letter with id `place`. `letter`: the newest letter of the same record."""
        times = self._times(letter) + 1
        return ReplayMark(
            app=self._group.app,
            group=self._group.group,
            partition=place[0],
            offset=place[1],
            topic_id=self._letters.topic_id,
            times=times,
            replay=letter.letter.replay + times,
            replayed_ms=self._environment.clock.wall_ms(),
            nonce=nonce,
        )

    def _send(
        self, engine: TransactionEngine, batch: list[DeadLetter], marks: Mapping[LetterId, ReplayMark]
    ) -> None:
        self._send_letters(engine, batch)
        engine.send([mark_output(mark) for mark in marks.values()])
        engine.send(self._count.output(sum(letter.id not in self._marks for letter in batch)))

    def _send_letters(self, engine: TransactionEngine, batch: list[DeadLetter]) -> None:
        for letter in batch:
            partition = TopicPartition(self._replays.name, letter.letter.origin.partition)
            engine.append(partition, [encode_replay(self._replay(letter))])

    def _recall(self) -> None:
        """Step 2, with a new reader: an older one may know only the leaders from before a broker's restart."""
        known_end = self._transactions.known_ends.get(marks_place(self._group), 0)
        self._marks = read_marks(self._group, self._letters.topic_id, self._environment, known_end)


def _batches(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.key or b"") + len(letter.value or b"")
        if len(batch) >= BATCH_LETTERS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class Discarder(Replayer):
    """Marks failed records of one group as discarded, without replaying them. Use an object once, from one thread.

    The protocol is that of a replay, with the same fence, but only marks are written. A discard that was killed can be
    run again. `Replayer` with `again` also replays discarded records.
    """

    def _prepare(self) -> None:
        """Do nothing: a discard sends no replays, so it needs no topic for them."""

    def _refusal(self, found: DeadLetter) -> str | None:  # noqa: ARG002 - every record can be discarded
        return None

    def _mark(self, letter: DeadLetter, place: LetterId, nonce: str) -> ReplayMark:
        mark = super()._mark(letter, place, nonce)
        return msgspec.structs.replace(mark, times=mark.times - 1, replay=mark.replay - 1, discarded=True)

    def _send_letters(self, engine: TransactionEngine, batch: list[DeadLetter]) -> None:
        """Do nothing: only marks are sent."""

"""Publishes the commits of one task: the only writer of its journal, outputs and store.

`publish` is the commit protocol after the seal; a numbered step below is a numbered comment in the body.

    1 renew, when the last transaction did not end cleanly and quickly
    2 begin
    3 produce the outputs and the entry
    4 flush: everything delivered, the entry beyond the last one and its marker
    5 prove, in the first transaction after a fence: nothing was committed from the end that was read up to the entry
    6 commit, timed alone: the commit point
    7 apply: delta and applied position in one write batch

A crash before 6 leaves an open transaction that the successor's init aborts; a crash after it leaves an entry
that restore applies. An outcome that is not known is resolved by `renew`: a new producer, init, and the
journal's end. A sealed commit is immutable, so an aborted one is simply published again, under a new nonce.
What a renewal reads may be old (runtime/proof.py): then 5 aborts, and the next renewal reads up to our own record.
Called from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from pipeline.config import WorkerSettings
from pipeline.core.dead_letter_count import LetterCount, grown
from pipeline.core.journal import (
    Entry,
    EntryKind,
    Identity,
    JournalEntry,
    encode_entry,
    make_journal_entry,
)
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import AppliedPosition, after, encode_position
from pipeline.core.recovery import CommitOutcome, resolve_outcome
from pipeline.errors import (
    AbortableError,
    CorruptStateError,
    FatalTaskError,
    InvariantError,
    RefusedError,
    StaleReadError,
    SupersededError,
    TruncatedError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Step, TransactionalClient
from pipeline.runtime.commit.journal_reader import read_entries, settled_end, without_delta
from pipeline.runtime.commit.proof import RENEW_SHARE, holds_records, write_barrier
from pipeline.runtime.environment import Environment

__all__ = ["Commit", "Publisher"]

NONCE_BYTES = 12
# A commit that Kafka refuses is refused at once, each time; one that fails slowly meets an outage, which passes.
MAX_QUICK_ATTEMPTS = 5
QUICK_S = 5.0
RETRY_PAUSE_S = 0.1
# Longer and longer between looks at a journal that a broker shows too short.
STALE_PAUSES_S = (0.1, 2.0)
BARRIER_LOOKS = 10  # after so many of these looks the leader is asked again where the journal ends
CHUNK_BYTES = 512 * 1024
MAX_LOOKED_AT = 3  # entries from the head on: the head, ours, and one more decide


class AppliedTo(Protocol):
    """What a publisher needs of a store."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Commit:
    """A sealed commit: nothing in it changes any more. `outputs` as ports.Output, already encoded."""

    kind: EntryKind
    positions: Mapping[str, int]
    delta: Mapping[bytes, bytes | None] = field(default_factory=dict)
    outputs: Sequence[Any] = ()
    identity: Identity | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict)
    letters: LetterCount | None = None  # the owner's count, as it began; None: as in the entry before
    letters_written: int = 0


class Publisher:
    """Owns the task's producer and its place in the journal (`head`, `applied`)."""

    def __init__(self, task: TaskId, owner: str, environment: Environment, settings: WorkerSettings) -> None:
        self._task = task
        self._owner = owner
        self._environment = environment
        self._settings = settings
        self._producer: TransactionalClient | None = None
        self._store: AppliedTo | None = None
        self._head: JournalEntry | None = None
        self.applied: AppliedPosition | None = None
        self._end_read: int | None = None  # the journal's end as read behind the fence, until it is proven
        self._known_end = 0  # the journal is at least this long: its leader has said so
        self._renew_due = False
        self._stopping = False
        self._slow_commits = 0
        self.renewals = 0
        self.proof_s = 0.0  # what the last proof took

    @property
    def known_end(self) -> int:
        """The journal is at least this long, as its leader has said; what a read has to reach."""
        return self._known_end

    @property
    def task(self) -> TaskId:
        return self._task

    @property
    def letters(self) -> LetterCount | None:
        """Of the last entry: the dead letters that the task has written so far."""
        return self._head.entry.letters if self._head is not None else None

    def fence(self) -> None:
        """Fence every older owner of the task. Waits while Kafka is away, until `stop_waiting`."""
        self._close_producer()
        pause = 0.1
        while True:
            producer = self._environment.producers.open(self._task.transactional_id)
            try:
                producer.init()
            except UnreachableError as error:
                producer.close()
                if self._stopping:
                    raise
                self._environment.log.warning("kafka_unreachable", task=str(self._task), error=error.message)
                self._environment.clock.sleep(pause)
                pause = min(pause * 2, 5.0)
            except BaseException:
                producer.close()
                raise
            else:
                self._producer = producer
                return

    def barrier(self) -> None:
        """Have the journal's leader say where it ends, for a verdict that nothing will be committed on.

        Raises FatalTaskError when that is below what the leader had said before, FencedError, and UnreachableError
        when no record can be written.
        """
        end = self.end_of(self._task.journal)
        if end < self._known_end:
            raise self._tail_lost(f"ends at offset {end}, below {self._known_end}")
        self._known_end = end + 1

    def end_of(self, place: TopicPartition) -> int:
        """Where a partition of the task's ends, by a record that is aborted. Raises FencedError, UnreachableError."""
        reason = ""
        for _ in range(MAX_QUICK_ATTEMPTS):
            if self._producer is None:
                raise InvariantError(f"task {self._task} writes a barrier without a fence")
            try:
                ends, clean = write_barrier(
                    self._producer, [place], self._environment.clock, self._settings.retry_backoff_ms
                )
            except (AbortableError, UnknownOutcomeError) as error:
                reason = error.message
                if self._stopping:
                    break
                self.fence()
                continue
            if not clean:
                self.fence()
            return ends[place]
        raise UnreachableError(f"task {self._task}: {place} cannot be written to: {reason}")

    def take(self, store: AppliedTo, head: JournalEntry, applied: AppliedPosition, end: int) -> None:
        """Continue after `head`, which `store` has applied. `end`: of the journal, as read behind the fence."""
        self._store = store
        self._head = without_delta(head)
        self.applied = applied
        self._end_read = end
        self._known_end = max(self._known_end, head.next_offset)

    def publish(self, commit: Commit) -> AppliedPosition:
        """Publish and apply; the position afterwards.

        Raises RefusedError (aborted, for what is in an output), FencedError, SupersededError, UnreachableError (only
        after `stop_waiting`), FatalTaskError (aborted again and again, or a check failed) and CorruptStateError (the
        store cannot be written).
        """
        clock = self._environment.clock
        quick = failed_while_stopping = 0
        nonces: list[bytes] = []  # of every attempt: an older one may turn out to be committed
        while True:
            began = clock.monotonic_s()
            nonces.append(self._environment.random.token(NONCE_BYTES))
            try:
                if self._renew_due:  # 1
                    self._renew(())
                entry = self._attempt(commit, nonces[-1])
            except AbortableError as error:
                last_error, hint = error.message, error.hint
                self._abort()
                resolved = self._renew(nonces)
                if resolved is None and isinstance(error, RefusedError):
                    raise  # for certain it has not happened, and it would be refused again
            except UnknownOutcomeError as error:
                last_error, hint = error.message, error.hint
                resolved = self._renew(nonces)
            else:
                return self._apply(commit, entry)
            if resolved is not None:
                return self._apply(commit, resolved)
            self._environment.log.warning("commit_aborted", task=str(self._task), error=last_error)
            quick = quick + 1 if clock.monotonic_s() - began < QUICK_S else 0
            if quick == MAX_QUICK_ATTEMPTS:
                raise FatalTaskError(
                    f"task {self._task}: a commit was aborted {quick} times in a row: {last_error}",
                    hint=f"{hint or 'mend the cause and start the worker again'}; nothing is lost",
                )
            # The renewal was answered, so Kafka is there: an id that expired while the task was idle is known again.
            failed_while_stopping += self._stopping
            if failed_while_stopping > 1:
                raise UnreachableError(f"task {self._task}: the last commit did not go through: {last_error}")
            clock.sleep(RETRY_PAUSE_S * quick)

    def stop_waiting(self) -> None:
        """From now on an unreachable Kafka is an error instead of a reason to wait."""
        self._stopping = True

    def close(self) -> None:
        """Close producer and store. Anything unpublished is left to the next owner."""
        self._close_producer()
        self.close_store()

    def close_store(self) -> None:
        """Close the store alone, to restore the task anew behind the same fence."""
        if self._store is not None:
            store, self._store = self._store, None
            try:
                store.close()
            except CorruptStateError as error:
                # A store repeats its write error when it is closed; that must not hide what ended the task.
                self._environment.log.warning("state_not_closed", task=str(self._task), reason=error.message)

    def _attempt(self, commit: Commit, nonce: bytes) -> JournalEntry:
        producer, head, steps, task = self._producer, self._head, self._environment.steps, self._task
        if producer is None or head is None:
            raise InvariantError(f"task {task} publishes before it was restored")
        now_ms = self._environment.clock.wall_ms()
        entry = Entry(
            kind=commit.kind,
            seq=head.entry.seq + 1,
            owner=self._owner,
            nonce=nonce,
            positions=dict(commit.positions),
            delta=commit.delta if isinstance(commit.delta, dict) else dict(commit.delta),
            identity=commit.identity,
            wall_ms=now_ms,
            extra=dict(commit.extra),
            checkpoint=head.checkpoint,
            journal_bytes=head.journal_bytes,
            letters=grown(head.entry.letters, commit.letters, commit.letters_written, now_ms),
        )
        chunks, chain = encode_entry(entry, head.chain, CHUNK_BYTES)
        steps.reached(Step.BEFORE_BEGIN, task)
        producer.begin()  # 2
        if commit.outputs:
            producer.send(commit.outputs)  # 3
        steps.reached(Step.AFTER_OUTPUTS, task)
        producer.append(task.journal, chunks)
        steps.reached(Step.AFTER_ENTRY, task)
        offset = producer.flush()  # 4
        steps.reached(Step.AFTER_FLUSH, task)
        if offset <= head.next_offset:
            self._abort()
            raise self._tail_lost(
                f"gave offset {offset} to entry {entry.seq}; it must be above {head.next_offset}, where entry "
                f"{head.entry.seq}'s marker is"
            )
        self._known_end = offset + len(chunks)
        if self._end_read is not None:
            self._prove(offset, self._end_read)  # 5
        steps.reached(Step.DURING_COMMIT, task)
        started = self._environment.clock.monotonic_s()
        producer.commit()  # 6
        elapsed_s = self._environment.clock.monotonic_s() - started
        steps.reached(Step.AFTER_COMMIT, task)
        if elapsed_s * 1000 >= RENEW_SHARE * self._settings.retry_backoff_ms:
            self._renew_due = True
            self._note_slow_commit(elapsed_s)
        return make_journal_entry(entry, chain, offset, chunks)

    def _prove(self, offset: int, end_read: int) -> None:
        """The entry is at `offset`. Raises AbortableError when something was committed after the end that was read."""
        started = self._environment.clock.monotonic_s()
        try:
            unseen = holds_records(
                self._task.journal,
                end_read,
                offset,
                journals=self._environment.journals,
                clock=self._environment.clock,
                # The transaction is open meanwhile, and must still be committed.
                timeout_s=self._settings.transaction_timeout_ms / 2000,
            )
        except StaleReadError as error:
            raise AbortableError(error.message, hint=error.hint) from error
        self.proof_s = self._environment.clock.monotonic_s() - started
        if unseen:
            raise AbortableError(
                f"task {self._task}: entries were committed between offset {end_read}, where a broker said that the "
                f"journal ends, and {offset}: that broker has lost its controllers"
            )
        self._end_read = None

    def _tail_lost(self, what: str) -> FatalTaskError:
        return FatalTaskError(
            f"the journal of task {self._task} {what}: Kafka lost committed records",
            hint="follow runbooks/journal-tail-lost.md before anything is processed",
        )

    def _note_slow_commit(self, elapsed_s: float) -> None:
        """One is nothing; many make every commit slower still. Said at the 10th, the 100th, and so on."""
        self._slow_commits += 1
        if self._slow_commits >= 10 and str(self._slow_commits).strip("0") == "1":
            self._environment.log.warning(
                "commits_slow",
                task=str(self._task),
                times=self._slow_commits,
                last_ms=round(elapsed_s * 1000),
                next="each costs a new producer: raise worker.retry_backoff_ms well above that",
            )

    def _apply(self, commit: Commit, entry: JournalEntry) -> AppliedPosition:
        if self._store is None:
            raise InvariantError(f"task {self._task} applies before it was restored")
        position = after(self.applied, entry)
        self._environment.steps.reached(Step.BEFORE_APPLY, self._task)
        self._store.apply(commit.delta, encode_position(position))  # 7
        self._environment.steps.reached(Step.AFTER_APPLY, self._task)
        self._head = without_delta(entry)
        self.applied = position
        return position

    def _renew(self, nonces: Sequence[bytes]) -> JournalEntry | None:
        """A new producer, init, and the journal's word on the attempts `nonces`: the entry of the one that committed.

        These belong together: an init without the look would take the task back from an owner that came
        in between and continue from a state that is no longer the last.
        """
        if self._head is None:
            raise InvariantError(f"task {self._task} renews before it was restored")
        self.renewals += 1
        self.fence()
        outcome, entry, self._end_read = self._look_after(self._head, nonces)
        self._renew_due = False
        if outcome is CommitOutcome.SUPERSEDED:
            raise SupersededError(
                f"task {self._task}: {entry.entry.owner} committed entry {entry.entry.seq} meanwhile"
            )
        return entry if outcome is CommitOutcome.COMMITTED else None

    def _look_after(
        self, head: JournalEntry, nonces: Sequence[bytes]
    ) -> tuple[CommitOutcome, JournalEntry, int]:
        """What became of the attempts, and the journal's end; by new readers until one of them sees enough.

        That the head is gone is believed only behind a barrier.
        """
        pause_s, longest_s = STALE_PAUSES_S
        proven = False
        looks = 0
        while True:
            looks += 1
            reader = self._environment.journals()
            try:
                end = settled_end(self._task, self._environment, self._settings, self.fence, self._known_end)
                found = islice(read_entries(self._task, reader, head.offset, end, None), MAX_LOOKED_AT)
                outcome, entry = resolve_outcome(str(self._task), head, nonces, list(found))
            except TruncatedError as error:
                # Only entries that later checkpoints cover are removed, so others have committed after ours.
                raise SupersededError(f"task {self._task}: {error.message}") from error
            except (FatalTaskError, StaleReadError) as error:
                if isinstance(error, FatalTaskError) and proven:
                    raise
                if self._stopping:
                    raise UnreachableError(error.message, hint=error.hint) from error
                self._environment.log.warning(
                    "journal_read_stale", task=str(self._task), reason=error.message
                )
            else:
                return outcome, entry, end
            finally:
                reader.close()
            if not proven or looks % BARRIER_LOOKS == 0:  # its record may be lost in turn
                self.barrier()
                proven = True
            else:
                self._environment.clock.sleep(pause_s)
                pause_s = min(pause_s * 2, longest_s)

    def _abort(self) -> None:
        if self._producer is None:
            return
        try:
            self._producer.abort()
        except (AbortableError, UnknownOutcomeError, UnreachableError) as error:
            # The renew that always follows an abort fences this producer and ends its transaction.
            self._environment.log.warning("abort_unclean", task=str(self._task), error=error.message)

    def _close_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

"""`JournalWriter`: the transactions that append a task's entries, and its position in the journal.

The numbered steps are those of `commit_protocol.py`. `settle_by_journal` finds in the journal the outcome of commit
attempts whose outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline.config import WorkerSettings
from pipeline.core.dead_letter_count import LetterCount, grown
from pipeline.core.entry_body import identity_in
from pipeline.core.journal_format import (
    Entry,
    EntryKind,
    Identity,
    JournalEntry,
    encode_entry,
    make_journal_entry,
)
from pipeline.core.names import TaskId
from pipeline.core.recovery import CommitOutcome, resolve_outcome
from pipeline.errors import (
    FatalTaskError,
    FencedError,
    InvariantError,
    PipelineError,
    StaleReadError,
    SupersededError,
    TruncatedError,
    UnreachableError,
)
from pipeline.ports import Step, error_fields, growing, task_fields
from pipeline.runtime.commit.journal_reader import first_entry, read_entries, settled_end, without_delta
from pipeline.runtime.commit.task_fence import TaskFence
from pipeline.runtime.environment import Environment
from pipeline.transactions.proof import prove_read

__all__ = ["CHUNK_BYTES", "Commit", "JournalWriter", "settle_by_journal"]

CHUNK_BYTES = 512 * 1024
SLOW_COMMITS_NOTED = 10

# Increasing pauses between reads, while a broker shows only a part of the journal.
STALE_PAUSES_S = (0.1, 2.0)
BARRIER_READS = 10  # after this many reads, a new barrier determines the journal's end
MAX_COMPARED = 3  # entries from the head on: the head, the attempt's entry and one more are enough to decide


def settle_by_journal(
    task: TaskId,
    fence: TaskFence,
    head: JournalEntry,
    nonces: Sequence[bytes],
    environment: Environment,
    settings: WorkerSettings,
) -> tuple[JournalEntry | None, int]:
    """The entry of the committed attempt, or None if none was committed, and the journal's end. After a fence.

    Repeats the read with new readers until one of them reads far enough. Treats a missing head as truncated only
    after a barrier. Raises SupersededError if another owner has committed after `head`.
    """
    pause_s = growing(*STALE_PAUSES_S)
    proven = False
    reads = 0
    while True:
        reads += 1
        reader = environment.journals()
        try:
            end = settled_end(task, environment, settings, fence.fence, fence.known_end)
            found = islice(read_entries(task, reader, head.offset, end, None), MAX_COMPARED)
            outcome, entry = resolve_outcome(str(task), head, nonces, list(found))
        except TruncatedError as error:
            # Only entries that later checkpoints contain are truncated, so other owners have committed after our head.
            raise SupersededError(f"task {task}: {error.message}") from error
        except (FatalTaskError, StaleReadError) as error:
            if isinstance(error, FatalTaskError) and proven:
                raise
            if fence.stopping:
                raise UnreachableError(error.message, hint=error.hint) from error
            environment.log.warning("journal_read_stale", **task_fields(task), **error_fields(error))
        else:
            if outcome is CommitOutcome.SUPERSEDED:
                raise SupersededError(
                    f"task {task}: {entry.entry.owner} committed entry {entry.entry.seq} meanwhile"
                )
            return (entry if outcome is CommitOutcome.COMMITTED else None), end
        finally:
            reader.close()
        if not proven or reads % BARRIER_READS == 0:  # the record of the barrier may also be lost
            fence.barrier()
            proven = True
        else:
            environment.clock.sleep(pause_s())


@dataclass(frozen=True, slots=True)
class Commit:
    """A sealed, immutable commit. `outputs`: in the form of ports.Output, already encoded.

    `stream_time_ms`: the event clock; -1: as in the previous entry. `records`: the number of its input records.
    `links`: the `traceparent` headers of some of them.
    """

    kind: EntryKind
    positions: Mapping[str, int]
    delta: Mapping[bytes, bytes | None] = field(default_factory=dict)
    outputs: Sequence[Any] = ()
    identity: Identity | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict)
    letters: LetterCount | None = None  # the count at the owner's start; None: as in the previous entry
    letters_written: int = 0
    stream_time_ms: int = -1
    records: int = 0
    links: Sequence[str] = ()


class JournalWriter:
    """Appends entries after `head`, the last entry that is known to be committed; None before the restore."""

    def __init__(
        self, task: TaskId, owner: str, fence: TaskFence, environment: Environment, settings: WorkerSettings
    ) -> None:
        self._task = task
        self._owner = owner
        self._fence = fence
        self._environment = environment
        self._settings = settings
        self.head: JournalEntry | None = None
        self._end_read: int | None = None  # the journal's end as read after the fence, until it is proven
        self._slow_commits = 0
        self._slow_commits_noted = SLOW_COMMITS_NOTED
        self.renewals = 0
        self.proof_s = 0.0  # the duration of the last proof

    def continue_after(self, head: JournalEntry, end: int) -> None:
        """Continue after `head`. `end`: the journal's end, as read after the fence."""
        self.head = without_delta(head)
        self._end_read = end
        self._fence.known_end = max(self._fence.known_end, head.next_offset)

    def commit(self, commit: Commit, nonce: bytes) -> JournalEntry:
        """Steps 2 to 6: one attempt. Raises what the engine raises, and FatalTaskError if the tail is lost."""
        engine, steps, task = self._fence.engine, self._environment.steps, self._task
        entry, chunks, chain = self._entry_of(commit, nonce)
        steps.reached(Step.BEFORE_BEGIN, task)
        began_s = self._environment.clock.monotonic_s()
        engine.begin()  # 2
        if commit.outputs:
            engine.send(commit.outputs)  # 3
        steps.reached(Step.AFTER_OUTPUTS, task)
        engine.append(task.journal, chunks)
        steps.reached(Step.AFTER_ENTRY, task)
        offset = engine.flush()  # 4
        steps.reached(Step.AFTER_FLUSH, task)
        self._check_offset(entry, offset)
        self._fence.known_end = offset + len(chunks)
        if self._end_read is not None:
            self._prove(offset, self._end_read, began_s)  # 5
        steps.reached(Step.DURING_COMMIT, task)
        took_s = engine.commit()  # 6
        steps.reached(Step.AFTER_COMMIT, task)
        if engine.fence_due:
            self._note_slow_commit(took_s)
        return make_journal_entry(entry, chain, offset, chunks, self._known_head().version)

    def settle(self, nonces: Sequence[bytes]) -> JournalEntry | None:
        """After a fence, find the outcome of the attempts `nonces` in the journal: the entry of the committed one."""
        resting, self._fence.resting = self._fence.resting, False
        if not resting:
            self.renewals += 1
            if self._environment.meter is not None:
                self._environment.meter.renewed(self._task)
        entry, self._end_read = settle_by_journal(
            self._task, self._fence, self._known_head(), nonces, self._environment, self._settings
        )
        return entry

    def look_for_owner(self) -> None:
        """Raise FencedError if another worker has committed after the head. Without a fence, which would end its work.

        Only a courtesy: a read that is stale or fails is ignored, because the fence and the read after it decide.
        """
        task, head = self._task, self._known_head()
        try:
            with closing(self._environment.journals()) as reader:
                end = reader.stable_ends([task.journal])[task.journal]
                # The marker of the head is at its `next_offset`.
                found = (
                    first_entry(task, reader, head.next_offset, end) if end > head.next_offset + 1 else None
                )
        except PipelineError as error:
            self._environment.log.info("owners_not_checked", **task_fields(task), **error_fields(error))
            return
        if found is not None:
            raise FencedError(f"task {task}: another worker has taken it after entry {head.entry.seq}")

    def abort_failed(self, error: PipelineError | None) -> None:
        """Log the failure. The renewal that follows each abort fences this producer and ends its transaction."""
        if error is not None:
            self._environment.log.warning("abort_failed", **task_fields(self._task), **error_fields(error))

    def _entry_of(self, commit: Commit, nonce: bytes) -> tuple[Entry, list[bytes], bytes]:
        """The entry after the head, with its chunks and its chain value."""
        head = self._known_head()
        now_ms = self._environment.clock.wall_ms()
        entry = Entry(
            kind=commit.kind,
            seq=head.entry.seq + 1,
            owner=self._owner,
            nonce=nonce,
            positions=dict(commit.positions),
            delta=commit.delta if isinstance(commit.delta, dict) else dict(commit.delta),
            identity=identity_in(commit.identity, head.version) if commit.identity is not None else None,
            wall_ms=now_ms,
            stream_time_ms=_stream_time_ms(commit, head.entry),
            extra=dict(commit.extra),
            checkpoint=head.checkpoint,
            journal_bytes=head.journal_bytes,
            letters=grown(head.entry.letters, commit.letters, commit.letters_written, now_ms),
        )
        return entry, *encode_entry(entry, head.chain, CHUNK_BYTES, head.version)

    def _check_offset(self, entry: Entry, offset: int) -> None:
        """Raise FatalTaskError unless the entry's offset is above the last entry and its marker."""
        head = self._known_head()
        if offset <= head.next_offset:
            self.abort_failed(self._fence.engine.abort())
            raise self._fence.tail_lost(
                f"gave offset {offset} to entry {entry.seq}; it must be above {head.next_offset}, where entry "
                f"{head.entry.seq}'s marker is"
            )

    def _prove(self, offset: int, end_read: int, began_s: float) -> None:
        """Prove the read that followed the fence.

        `offset`: of this entry. `began_s`: when the transaction began. Raises AbortableError if the read was stale.
        """
        clock = self._environment.clock
        started = clock.monotonic_s()
        prove_read(
            self._task.journal,
            end_read,
            offset,
            journals=self._environment.journals,
            clock=clock,
            # The transaction is open during the proof, and must be committed before its time-out. Its records may
            # have taken most of that time to be delivered.
            timeout_s=max(0.0, began_s + self._settings.transaction_timeout_ms / 2000 - started),
        )
        self.proof_s = clock.monotonic_s() - started
        self._end_read = None

    def _note_slow_commit(self, took_s: float) -> None:
        """Log the 10th slow commit, the 100th, and so on: a few are harmless, but many slow down every commit."""
        self._slow_commits += 1
        if self._slow_commits < self._slow_commits_noted:
            return
        self._slow_commits_noted *= 10
        self._environment.log.warning(
            "commits_slow",
            **task_fields(self._task),
            count=self._slow_commits,
            commit_ms=round(took_s * 1000),
            hint="raise worker.retry_backoff_ms well above commit_ms; each slow commit requires a new producer",
        )

    def _known_head(self) -> JournalEntry:
        if self.head is None:
            raise InvariantError(f"task {self._task} publishes before it was restored")
        return self.head


def _stream_time_ms(commit: Commit, before: Entry) -> int:
    """The event clock after a commit, for people. The clocks that count are rows of the state."""
    if commit.kind is EntryKind.RESET:
        return -1
    return commit.stream_time_ms if commit.stream_time_ms >= 0 else before.stream_time_ms

"""The commit protocol of a task: `Publisher`, the only writer of the task's journal, outputs and store.

Handlers have run and the overlay is sealed. `Publisher.publish` then does seven steps:

    1 renew, if the last transaction did not end cleanly and quickly, or if the producer of the idle task was closed:
      fence, and read the journal's end
    2 begin a transaction
    3 produce the outputs and the entry
    4 flush: everything is delivered, and the entry's offset is above the last entry and its marker
    5 prove, in the first transaction after a fence: nothing was committed between the end that was read and the entry
    6 commit, timed separately: the commit point
    7 apply: table writes and applied position in one write batch

Step 1 is in `transactions/outcomes.py` (`commit_until_settled`), steps 2 to 6 are in `JournalWriter.commit`, and step 7
is in `Publisher._apply`.

Each of steps 1 to 6 calls the step of that number in `transactions/engine.py`, which every user of Kafka transactions
shares (`transactions/__init__.py`). Step 1 adds the read of the journal to the engine's fence.

A crash before 6 leaves an open transaction, which the successor's fence aborts. A crash after 6 leaves an entry, which
the restore applies. A renewal resolves an unknown outcome. A sealed commit is immutable, so an aborted one is published
again with a new nonce. A renewal may read a stale journal (`transactions/proof.py`): step 5 then aborts, and the next
renewal reads up to our own record. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

from pipeline.config import WorkerSettings
from pipeline.core.dead_letter_count import LetterCount
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import AppliedPosition, after, encode_position
from pipeline.errors import (
    CorruptStateError,
    FatalTaskError,
    InvariantError,
    PipelineError,
    RefusedError,
    UnreachableError,
)
from pipeline.ports import Step, error_fields, task_fields
from pipeline.runtime.commit.journal_reader import without_delta
from pipeline.runtime.commit.journal_writer import Commit, JournalWriter
from pipeline.runtime.commit.task_fence import TaskFence
from pipeline.runtime.environment import Environment
from pipeline.runtime.metrics.meter import CommitResult
from pipeline.runtime.task.trace_links import with_traceparent
from pipeline.transactions.outcomes import commit_until_settled

__all__ = ["Publisher"]

NONCE_BYTES = 12
# A commit that Kafka refuses fails fast every time. One that fails slowly has met an outage, which is temporary.
MAX_QUICK_ATTEMPTS = 5
QUICK_S = 5.0
RETRY_PAUSE_S = 0.1


class AppliedTo(Protocol):
    """The part of a store that a publisher uses."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None: ...

    def close(self) -> None: ...


class Publisher:
    """Publishes the commits of a task and applies them to its store."""

    def __init__(self, task: TaskId, owner: str, environment: Environment, settings: WorkerSettings) -> None:
        self._task = task
        self._environment = environment
        self._fence = TaskFence(task, environment, settings)
        self._writer = JournalWriter(task, owner, self._fence, environment, settings)
        self._store: AppliedTo | None = None
        self.applied: AppliedPosition | None = None

    @property
    def known_end(self) -> int:
        """The journal's end as its leader last reported it. A read must reach it."""
        return self._fence.known_end

    @property
    def task(self) -> TaskId:
        return self._task

    @property
    def letters(self) -> LetterCount | None:
        """The count of the last entry: the dead letters that the task has written so far."""
        return self._writer.head.entry.letters if self._writer.head is not None else None

    @property
    def renewals(self) -> int:
        """The number of renewals of the producer after a failure or a slow end."""
        return self._writer.renewals

    @property
    def proof_s(self) -> float:
        """The duration of the last proof in seconds."""
        return self._writer.proof_s

    def fence(self) -> None:
        """Fence all earlier owners of the task. Waits while Kafka is unreachable, until `stop_waiting`."""
        self._fence.fence()

    def barrier(self) -> None:
        """Write a barrier, so that the journal's leader reports the end: `TaskFence.barrier`."""
        self._fence.barrier()

    def end_of(self, partition: TopicPartition) -> int:
        """The end of a partition of the task, from an aborted record. Raises FencedError, UnreachableError."""
        return self._fence.end_of(partition)

    def take(self, store: AppliedTo, head: JournalEntry, applied: AppliedPosition, end: int) -> None:
        """Continue after `head`, which `store` has applied. `end`: the journal's end, as read after the fence."""
        self._store = store
        self.applied = applied
        self._writer.continue_after(head, end)

    def publish(self, commit: Commit) -> AppliedPosition:
        """Publish and apply the commit. Returns the new position.

        Raises:
            RefusedError: aborted because of the content of an output.
            FencedError, SupersededError: another owner has the task.
            UnreachableError: only after `stop_waiting`.
            FatalTaskError: too many aborts in a row, or a check failed.
            CorruptStateError: the store cannot be written.
        """
        meter, tracer = self._environment.meter, self._environment.tracer
        with tracer.span("commit", self._task, commit.records, commit.links) as span:
            span.note(entry=commit.kind.name.lower())
            if tracer.propagates and commit.outputs and span.traceparent:
                letters = {self._task.group_id.dead_letter_topic}  # a dead letter is a copy of its record
                outputs = with_traceparent(commit.outputs, span.traceparent, letters)
                commit = replace(commit, outputs=outputs)
            with meter.committing(self._task) if meter is not None else nullcontext():
                applied = self._publish(commit)
            span.note(seq=applied.seq)
        return applied

    def _publish(self, commit: Commit) -> AppliedPosition:
        if self._fence.resting:
            self._writer.look_for_owner()
        publication = _Publication(self._task, commit, self._writer, self._fence, self._environment)
        entry = commit_until_settled(self._fence.engine, publication)  # 1 to 6
        return self._apply(commit, entry)

    def stop_waiting(self) -> None:
        """From now on, raise UnreachableError if Kafka is unreachable, instead of waiting."""
        self._fence.stopping = True

    def rest(self) -> None:
        """Close the producer of an idle task. The next commit begins with step 1 (`runtime/idle_producers.py`)."""
        self._fence.rest()

    @property
    def resting(self) -> bool:
        """Whether the producer was closed because the task is idle."""
        return self._fence.resting

    def close(self) -> None:
        """Close producer and store. The next owner processes unpublished records again."""
        self._fence.engine.close()
        self.close_store()

    def close_store(self) -> None:
        """Close only the store, to restore the task again after the same fence."""
        if self._store is not None:
            store, self._store = self._store, None
            try:
                store.close()
            except CorruptStateError as error:
                # A store repeats its write error in `close`. It must not hide the error that ended the task.
                self._environment.log.warning(
                    "local_state_not_closed", **task_fields(self._task), **error_fields(error)
                )

    def _apply(self, commit: Commit, entry: JournalEntry) -> AppliedPosition:
        if self._store is None:
            raise InvariantError(f"task {self._task} applies before it was restored")
        position = after(self.applied, entry)
        self._environment.steps.reached(Step.BEFORE_APPLY, self._task)
        self._store.apply(commit.delta, encode_position(position))  # 7
        self._environment.steps.reached(Step.AFTER_APPLY, self._task)
        self._writer.head = without_delta(entry)
        self.applied = position
        return position


class _Publication:
    """`OutcomePolicy` of one commit of a task: an attempt is a nonce, and the journal settles unknown outcomes."""

    def __init__(
        self, task: TaskId, commit: Commit, writer: JournalWriter, fence: TaskFence, environment: Environment
    ) -> None:
        self._task = task
        self._commit = commit
        self._writer = writer
        self._fence = fence
        self._environment = environment
        self._began_s = 0.0
        self._quick = 0
        self._failed_while_stopping = 0
        self.fence = fence.fence
        self.settle = writer.settle
        self.abort_failed = writer.abort_failed

    def attempt(self) -> bytes:
        self._began_s = self._environment.clock.monotonic_s()
        return self._environment.random.token(NONCE_BYTES)

    def transact(self, nonce: bytes) -> JournalEntry:
        return self._writer.commit(self._commit, nonce)

    def not_committed(self, error: PipelineError) -> None:
        """Pause. Raises if the commit would be refused again, was aborted too often, or the worker stops."""
        clock = self._environment.clock
        if isinstance(error, RefusedError):
            raise error  # it was certainly not committed, and would be refused again
        self._environment.log.warning("commit_aborted", **task_fields(self._task), **error_fields(error))
        if self._environment.meter is not None:
            self._environment.meter.not_committed(self._task, CommitResult.ABORTED)
        self._quick = self._quick + 1 if clock.monotonic_s() - self._began_s < QUICK_S else 0
        if self._quick == MAX_QUICK_ATTEMPTS:
            raise FatalTaskError(
                f"task {self._task}: a commit was aborted {self._quick} times in a row: {error.message}",
                hint=f"{error.hint or 'fix the cause, then start the worker again'}; no data is lost",
            )
        # The renewal succeeded, so Kafka is reachable, and has registered an id that expired while the task was idle.
        self._failed_while_stopping += self._fence.stopping
        if self._failed_while_stopping > 1:
            raise UnreachableError(f"task {self._task}: the last commit failed: {error.message}")
        clock.sleep(RETRY_PAUSE_S * self._quick)

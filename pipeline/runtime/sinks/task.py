"""One live sink task: records become rows on the processing thread, and an executor writes them.

The life of a batch. The processing thread is the only writer, except where noted:

    OPEN --interval, records or bytes reached, nothing sealed--> SEALED --write (an executor's thread)--> gone
                                                                  |   \\--no answer--> the same again, later
                                                                  +--refused--> two halves, or the guilty record

If the row of a record cannot be made or is refused, its sink's policy is applied (`record_rows`). Everything before it
is committed. A record that stops its partition stops the task only if the other partitions are stopped, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from pipeline.config import WorkerSettings
from pipeline.core.inputs import ordinal_of
from pipeline.core.names import TaskId
from pipeline.core.sink_positions import Hold
from pipeline.errors import (
    InvariantError,
    PipelineError,
    RejectedRowsError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Executor, Pending, Record, error_fields, record_fields, task_fields
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.crashes import InputCrashes
from pipeline.runtime.environment import Environment
from pipeline.runtime.metrics.meter import CommitResult
from pipeline.runtime.sinks.record_rows import RecordRows
from pipeline.runtime.sinks.rows import Item, OpenBatch, Outlet, SinkBatch, halves, without, writes_of
from pipeline.runtime.sinks.sessions import Health
from pipeline.runtime.sinks.writer import SinkWriter
from pipeline.runtime.task.backlog import Backlog, Retried
from pipeline.runtime.task.record_errors import Rejected
from pipeline.runtime.task.trace_links import TraceLinks
from pipeline.runtime.watchdog import AtWork

__all__ = ["SinkRun", "SinkTask"]

RETRY_S = (0.2, 5.0)
JITTER = (0.8, 1.2)
RECORD_OVERHEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class SinkRun:
    """The objects that the tasks of one group share."""

    outlets: Sequence[Outlet]
    health: Health
    executor: Executor
    environment: Environment
    settings: WorkerSettings
    commit_rate: CommitRate


class SinkTask:
    """`LiveTask` of a sink group."""

    def __init__(self, writer: SinkWriter, run: SinkRun) -> None:
        self.id: TaskId = writer.hold.task
        self.applied: Hold = writer.hold
        self.records = 0
        self.rows = 0
        self.outputs = 0
        self.commits = 0
        self.duplicates = (0, 0)  # a sink stores no ids
        self.clock_ms: int | None = None  # and it has no clock
        self.late_events = 0
        self.removed_values = self.removed_events = 0
        self.written: Sequence[str] = ()
        self._writer = writer
        self._run = run
        self._meter = run.environment.meter
        self._positions = dict(self.applied.positions)
        self._names = writer.hold.names
        self._rows = RecordRows(self.id, run.outlets, self._positions, run.environment.log)
        self._backlog = Backlog(run.environment.clock)
        self._open = OpenBatch()
        self._sealed: deque[SinkBatch] = deque()
        self._under_way: Pending[Hold] | None = None
        self._releasing = False
        self._released = False
        self._leaving = False
        self._stopping = False
        self._tries = 0
        self._next_s = 0.0
        self._hurry = False  # commit what precedes a record that stops its partition

    @property
    def crashes(self) -> InputCrashes:
        """The records that crashed the process before."""
        return self._rows.crashes

    @crashes.setter
    def crashes(self, crashes: InputCrashes) -> None:
        self._rows.crashes = crashes

    @property
    def poison(self) -> PipelineError | None:
        """Why it makes no more rows: all its partitions are stopped."""
        stopped = self._rows.stopped
        partitions = len(set(map(ordinal_of, self._positions)))
        return next(iter(stopped.values())) if len(stopped) == partitions else None

    @property
    def rejected(self) -> Rejected:
        """How many records were skipped."""
        return self._rows.rejected

    @property
    def full(self) -> bool:
        """Whether the open batch is at its limit. Further records wait until it can be sealed."""
        settings = self._run.settings
        return (
            len(self._open.items) >= settings.max_records_per_commit
            or self._open.bytes >= settings.max_bytes_per_commit
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is open, in progress or waiting; a task that leaves must also be released."""
        busy = self._open.items or self._sealed or self._under_way is not None
        return not (busy or self._backlog or (self._leaving and not self._released))

    @property
    def positions(self) -> Mapping[str, int]:
        """The next offset to process, by input."""
        return self._positions

    @property
    def stopped(self) -> Mapping[int, PipelineError]:
        """The errors of the records that have stopped their partitions."""
        return self._rows.stopped

    @property
    def waiting(self) -> Mapping[int, int]:
        """The number of waiting records of each partition that has some."""
        return self._backlog.by_partition

    def unfinished(self, partition: int) -> bool:
        """Whether records of a partition wait."""
        return partition in self._backlog.by_partition

    @property
    def backlog_records(self) -> int:
        """The number of waiting records."""
        return self._backlog.records

    @property
    def retried(self) -> Retried | None:
        """None: sinks do not retry records."""
        return None

    @property
    def at_work(self) -> AtWork | None:
        """The record that a row function is processing. Any thread may call this."""
        return self._rows.at_work

    def offer(self, name: str, records: Sequence[Record]) -> None:
        """Make rows of records of an input, now or once there is room."""
        if self._leaving or records[0].partition() in self._rows.stopped:
            return
        if self._backlog or self.full:
            self._backlog.add(name, records)
        else:
            self._take(name, records)

    def inputs_checked(self, at_end: Collection[str]) -> None:
        """Do nothing: it has no clock."""

    def skip_to(self, positions: Mapping[str, int]) -> None:
        """Commit these positions, below which every record is written: with the open batch, or alone."""
        if any(at < self._positions[name] or self._backlog.holds(name) for name, at in positions.items()):
            raise InvariantError(f"task {self.id} skips {positions} at {self._positions}")
        self._positions.update(positions)
        if not self._open.items:
            self._sealed.append(SinkBatch([], dict(self._positions)))

    def leave(self) -> None:
        """Start to release the task: read no more, write the open batch, and clear the owner in its rows."""
        self._leaving = True
        self._backlog.clear()

    def stop_waiting(self) -> None:
        """From now on, an unreachable database is an error instead of a reason to wait."""
        self._stopping = True
        self._next_s = 0.0

    def advance(self) -> bool:
        """Handle the outcome of the batch in progress, process waiting records, seal and write if it is due."""
        moved = False
        if self._under_way is not None and self._under_way.done():
            self._finish_step()
            moved = True
        while self._backlog and not self.full:
            waiting = self._backlog.take()
            if waiting is None:
                break
            self._take(waiting.name, waiting.records)
            moved = True
        if self._meter is not None:
            busy = self._under_way is not None or bool(self._sealed)
            self._meter.waits(self.id, waiting=busy and self.full and bool(self._backlog))
        if self._under_way is not None:
            return moved
        if not self._sealed and self._open.items and (self._leaving or self._due()):
            self._seal()
        if self._sealed:
            return self._write() or moved
        if self._leaving and not self._released:
            self._releasing = True
            self._under_way = self._run.executor.submit(self._writer.release)
            return True
        return moved

    def wait(self) -> None:
        """Wait for the batch in progress. Raises the error that ended it."""
        if self._under_way is not None:
            self._finish_step()

    def close(self) -> Pending[None] | None:
        """Discard the rows that are not written."""
        self._run.commit_rate.forget(self.id)
        if self._meter is not None:
            self._meter.waits(self.id, waiting=False)
        pending = self._under_way
        return None if pending is None or pending.done() else _Completion(pending)

    def _take(self, name: str, records: Sequence[Record]) -> None:
        first = records[0].offset()
        if first < self._positions[name]:
            raise InvariantError(
                f"task {self.id}: {name} gave offset {first}, below the position {self._positions[name]}"
            )
        opened, before = self._open.items, len(self._open.items)
        if not before:
            self._open.since_s = self._run.environment.clock.monotonic_s()
        with self._meter.handling(self.id) if self._meter is not None else nullcontext():
            self._rows.make(name, records, opened)
        made = opened[before:]  # the first ones, each with an item
        if made:
            self._positions[name] = made[-1].record.offset() + 1
            self.records += len(made)
            self._open.bytes += _bytes_of(made)
        if records[0].partition() in self._rows.stopped:
            self._stop(records[len(made)])

    def _stop(self, record: Record) -> None:
        """Make no rows of a partition from this record on. The others continue, as those of other tasks would."""
        partition = record.partition() or 0
        self._backlog.drop([name for name in self._positions if self._is_of(name, partition)])
        self._hurry = True
        if self.poison is None:
            self._run.environment.log.error(
                "partition_stopped",
                **task_fields(self.id),
                **record_fields(record),
                **error_fields(self._rows.stopped[partition]),
            )

    def _is_of(self, name: str, partition: int) -> bool:
        return self._names.place(name).partition == partition

    def _due(self) -> bool:
        if self.full or self._hurry:
            return True
        open_s = self._run.environment.clock.monotonic_s() - self._open.since_s
        return open_s * 1000 >= self._run.settings.commit_interval_ms and self._run.commit_rate.may(self.id)

    def _seal(self) -> None:
        self._run.commit_rate.forget(self.id)
        self._sealed.append(SinkBatch(self._open.items, dict(self._positions)))
        self._open = OpenBatch()
        self._hurry = False

    def _write(self) -> bool:
        """Start to write the first sealed batch, unless it must wait."""
        if self._run.environment.clock.monotonic_s() < self._next_s:
            return False
        batch, writer, outlets = self._sealed[0], self._writer, self._run.outlets
        meter, tracer, task = self._meter, self._run.environment.tracer, self.id
        links = self._links_of(batch)

        def write() -> Hold:
            with (
                tracer.span("commit", task, len(batch.items), links) as span,
                meter.committing(task) if meter is not None else nullcontext(),
            ):
                hold = writer.write(batch.after, [write for _, write in writes_of(batch, outlets)])
                span.note(seq=hold.seq, rows=batch.rows)
                return hold

        self._under_way = self._run.executor.submit(write)
        return True

    def _links_of(self, batch: SinkBatch) -> Sequence[str]:
        most = self._run.environment.tracer.links
        links = TraceLinks(most)
        links.look([item.record for item in batch.items[:most]], most)
        return links.take()

    def _finish_step(self) -> None:
        """Handle the outcome of the step in progress."""
        pending, self._under_way = self._under_way, None
        if pending is None:
            return
        try:
            hold = pending.result()
        except RejectedRowsError as error:
            self._run.health.answered()
            self._narrow(error)
        except (SinkUnreachableError, UnknownOutcomeError, RetriableError) as error:
            self._try_again(error)
        else:
            self._run.health.answered()
            self._tries, self._next_s = 0, 0.0
            self.applied = hold
            if self._releasing:
                self._released = True
                return
            batch = self._sealed.popleft()
            self.commits += 1
            self.rows += batch.rows

    def _try_again(self, error: PipelineError) -> None:
        """Retry the batch later. The writer first settles a commit with an unknown outcome."""
        if not isinstance(error, RetriableError):
            self._run.health.unanswered(error)
        if self._meter is not None:
            self._meter.not_committed(self.id, CommitResult.ABORTED)
        if self._stopping:
            raise UnreachableError(
                f"task {self.id}: the last rows were not written: {error.message}"
            ) from error
        pause_s = min(RETRY_S[0] * 2**self._tries, RETRY_S[1]) * self._run.environment.random.uniform(*JITTER)
        self._tries = min(self._tries + 1, 10)
        self._next_s = self._run.environment.clock.monotonic_s() + pause_s
        if isinstance(error, RetriableError) and self._tries in {3, 10}:
            self._run.environment.log.warning("sink_retrying", **task_fields(self.id), **error_fields(error))

    def _narrow(self, error: RejectedRowsError) -> None:
        """Split a refused batch in two. If it has one record, apply the policy."""
        batch = self._sealed.popleft()
        if len(batch.items) > 1:
            self._sealed.extendleft(reversed(halves(batch, self.applied.positions, self._names)))
            return
        if not batch.items:
            raise InvariantError(f"task {self.id}: nothing was written, and it was refused: {error.message}")
        item = batch.items[0]
        writes = writes_of(batch, self._run.outlets)
        guilty = [writes[error.write][0]] if error.write is not None else [at for at, _ in writes]
        strictest = next((at for at in guilty if self._run.outlets[at].on_error == "stop"), guilty[0])
        if self._rows.reject(item.record, strictest, error):
            self._sealed.appendleft(SinkBatch([], batch.after))
        else:
            self._discard_from(item.record)

    def _discard_from(self, record: Record) -> None:
        """Discard a record that stops its partition and everything after it. The next owner reads it again."""
        partition = record.partition() or 0
        applied = self.applied.positions
        self._sealed = deque(without(self._sealed, partition, applied, self._names))
        self._open.items = [item for item in self._open.items if item.record.partition() != partition]
        self._open.bytes = _bytes_of(self._open.items)
        self._positions.update({name: at for name, at in applied.items() if self._is_of(name, partition)})
        self._stop(record)


def _bytes_of(items: Sequence[Item]) -> int:
    return sum([len(item.record.value() or b"") + RECORD_OVERHEAD_BYTES for item in items])


class _Completion:
    """A future that is done when a step is. It ignores the step's error."""

    def __init__(self, pending: Pending[Hold]) -> None:
        self._pending = pending

    def done(self) -> bool:
        return self._pending.done()

    def result(self) -> None:
        try:
            self._pending.result()
        except PipelineError:
            return

"""One live task: handlers write to an open overlay, and at most one sealed commit is in progress.

The life of an overlay. The processing thread is the only writer, except where noted:

    open --seal--> sealed --publish+apply (commit thread)--> applied --retire--> dropped; the store has its rows

    OPEN --interval, records or bytes reached, no commit in progress--> SEALED; a new overlay is open immediately

If the overlay is full and a commit is in progress, records wait in `_backlog`. So do a record that is to be retried
later and the records that follow it in its input.

All due timers of a partition fire before its next record. If more are due than a turn fires, its records wait in
`_backlog`, and those of other partitions do not.

A task reads several inputs: partitions of topics, under the names of `core/inputs.py`. Handlers see the rows of the
partition of their record only (`Partition`), so results do not depend on the number of tasks. A record that stops its
partition stops the task only if the other partitions are stopped, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from pipeline.api.context import RuntimeContext, Sender
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.table import TaskOverlay
from pipeline.config import WorkerSettings
from pipeline.core.dead_letter_count import begun
from pipeline.core.event_time import NEVER_MS
from pipeline.core.inputs import topic_of
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import FatalTaskError, InvariantError, PipelineError, RefusedError
from pipeline.ports import Pending, Record, Step, error_fields, record_fields, task_fields
from pipeline.runtime.commit.commit_protocol import Publisher
from pipeline.runtime.commit.commit_rate import CommitRate, TaskPace
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.crashes import NativeCrash, unrecorded
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.restore.restore import RestoredState
from pipeline.runtime.task.backlog import Backlog, Retried, WaitingRecords
from pipeline.runtime.task.cache import CacheBudget
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.due_steps import Allowance
from pipeline.runtime.task.partition import Partition, PartitionMaker
from pipeline.runtime.task.processor import Processor
from pipeline.runtime.task.record_errors import PoisonError, Rejected, RetryError, TimersDueError
from pipeline.runtime.task.refused_outputs import RefusalSearch, RefusedOutputError, Sealed
from pipeline.runtime.task.replays import condemn_replay, process_replays
from pipeline.runtime.task.trace_links import TraceLinks
from pipeline.runtime.watchdog import AtWork

__all__ = ["Entered", "Task"]

Entered = Callable[[AppliedPosition], None]


def _nothing(_applied: AppliedPosition) -> None:
    """The default callback after a commit: does nothing."""


def _waits(partition: Partition) -> bool:
    """Whether timers must fire before the next record of a partition."""
    return partition.steps is not None and partition.steps.timer_due


class Task:
    """The processing-thread side of a task. It is created live, from a restored state."""

    def __init__(
        self,
        task: TaskId,
        plan: GroupPlan,
        restored: RestoredState,
        senders: Mapping[DeclaredTopic[Any, Any], Sender],
        resources: Any,
        environment: Environment,
        settings: WorkerSettings,
        commit_rate: CommitRate,
        caches: CacheBudget,
        narrowing: RefusalSearch,
        largest_letter: int,
        *,
        no_letters: bool = False,
    ) -> None:
        self.id = task
        self._plan = plan
        group = plan.group
        self._pace = TaskPace(task, commit_rate, plan.placed_by)
        self._caches = caches
        self._environment = environment
        self._meter = environment.meter
        self._links = TraceLinks(environment.tracer.links)
        self._settings = settings
        self._publisher: Publisher = restored.publisher
        self.store = restored.store
        self._overlay = TaskOverlay()
        self.context = RuntimeContext({}, senders, resources)
        topic_ids = {name: facts.topic_id for name, facts in plan.identity.inputs.items()}
        self._letter_count = (
            begun(restored.publisher.letters, plan.letters_id, restored.applied.seq, empty=no_letters)
            if plan.letters_id
            else None
        )
        self._letters = letters = DeadLetters(
            task, environment.clock, largest_letter, topic_ids, self._letter_count
        )
        self._partitions = PartitionMaker(
            task,
            plan,
            restored.store,
            self._overlay,
            self.context,
            environment.clock,
            settings.input_idle_s,
            restored.applied.identity.tasks > 0,
        ).made()
        self._by_name = {name: each for each in self._partitions for name in each.names}
        self._current: Partition | None = None  # whose rows handlers see
        self._touched: dict[int, Partition] = {}  # since the last seal
        self._due: dict[int, Partition] = {}  # those with due steps
        self._processor = Processor(
            task, group, self.context, self._overlay, letters, environment.log, {}, topic_ids
        )
        self.applied: AppliedPosition = restored.applied
        self._positions: dict[str, int] = dict(restored.applied.positions)
        self._open_records = 0
        self._open_bytes = 0
        self._open_steps = 0  # due steps
        self._last_step: Record | None = None
        self._under_way: Pending[AppliedPosition] | None = None
        self._closing: Pending[None] | None = None  # of the producer, because the task is idle
        self._last: tuple[str, int] | None = None  # input and offset of the last processed record
        self._moved: set[str] = set()  # inputs of which records were processed since the last seal
        self._sealed = Sealed({})
        self._sealed_partitions: list[Partition] = []  # those of the sealed overlay
        self._narrowing = narrowing
        narrowing.begin(restored.applied.positions)
        self._backlog = Backlog(environment.clock)
        self._replays_topic = group.id.replays_topic
        self._entries: deque[tuple[Commit, Entered]] = deque()
        self._entered: Entered = _nothing
        self._leaving = False
        self.crashes = unrecorded(task, self._positions)
        self.stopped: dict[int, PipelineError] = {}
        self._hurry = False  # commit what precedes a record that stops its partition
        self.records = self.outputs = self.commits = 0
        self.rows = 0  # a task with handlers writes no rows to a database
        # When this task last knew that it is the owner: at the beginning of its last commit.
        self.owned_at_s = self._began_s = environment.clock.monotonic_s()
        self._note_all_due()
        self._next_tick_ms = self._first_tick_ms()  # the wall clock at the next tick of any partition

    @property
    def poison(self) -> PipelineError | None:
        """Why it processes no more records: all its partitions are stopped."""
        return next(iter(self.stopped.values())) if len(self.stopped) == len(self._partitions) else None

    @property
    def full(self) -> bool:
        """Whether the open overlay is at its limit. Further records wait until it can be sealed."""
        return (
            self._open_records + self._open_steps >= self._narrowing.limit
            or self._open_bytes + self._overlay.written_bytes >= self._settings.max_bytes_per_commit
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is open, in progress or waiting, and no step is due. A task that leaves fires none."""
        busy = self._open or self._under_way is not None or self._entries or self._backlog
        return not (busy or self._closing is not None or (self._due and not self._leaving))

    @property
    def _open(self) -> bool:
        """Whether there is something to commit."""
        return self._open_records > 0 or self._open_steps > 0

    @property
    def clock_ms(self) -> int | None:
        """The event clock of the partition that is furthest behind, of those that had records; None without records."""
        clocks = [each.times.clock.ms for each in self._partitions if each.times is not None]
        return min(filter(None, clocks), default=None)

    @property
    def late_events(self) -> int:
        """How often an event was late for a window or a history."""
        return sum(each.late_events for each in self._partitions)

    @property
    def removed_values(self) -> int:
        """How often a value of a history was removed because its key had too many."""
        return sum(each.removed_values for each in self._partitions)

    @property
    def removed_events(self) -> int:
        """How often an event of a join waited no longer because its key had too many."""
        return sum(each.removed_events for each in self._partitions)

    @property
    def producer_closed(self) -> bool:
        """Whether the producer is closed, or being closed, because the task was idle."""
        return self._closing is not None or self._publisher.resting

    @property
    def backlog_records(self) -> int:
        """The number of waiting records."""
        return self._backlog.records

    @property
    def waiting(self) -> Mapping[int, int]:
        """The number of waiting records of each partition that has some."""
        return self._backlog.by_partition

    @property
    def retried(self) -> Retried | None:
        """The record that is being retried, for which others of its input wait."""
        return self._backlog.retried

    def unfinished(self, partition: int) -> bool:
        """Whether records of a partition wait, or are being handled."""
        return partition in self._backlog.by_partition

    @property
    def positions(self) -> Mapping[str, int]:
        """The next offset to process, by input. It is ahead of `applied.positions` by the uncommitted records."""
        return self._positions

    @property
    def duplicates(self) -> tuple[int, int]:
        """The duplicates that were dropped, and those that passed because they came after the time-to-live."""
        dropped = [ids.dropped for each in self._partitions for ids in each.dedup.values()]
        return sum(d.duplicates for d in dropped), sum(d.late for d in dropped)

    @property
    def rejected(self) -> Rejected:
        return self._processor.rejected

    @property
    def written(self) -> Sequence[str]:
        """The topics that it has written to."""
        return self.context.written

    @property
    def at_work(self) -> AtWork | None:
        """The record that a handler of this task is processing. Any thread may call this."""
        return self._processor.at_work

    def offer(self, name: str, records: Sequence[Record]) -> None:
        """Process records of an input, now or once there is room."""
        if self._leaving or (self.stopped and self._by_name[name].number in self.stopped):
            return
        if self._narrowing.active:
            for part in self._narrowing.slices(records):
                self._backlog.add(name, part)
        elif self._backlog or self.full:
            self._backlog.add(name, records)
        else:
            self._process(name, records)

    def enter(self, kind: EntryKind, extra: Mapping[str, bytes], then: Entered | None = None) -> None:
        """Commit an entry of this kind, without a delta, after the commit in progress.

        `then` is called on the processing thread with the applied position, once the entry is committed and applied.
        """
        self._entries.append((Commit(kind, {}, extra=extra), then or _nothing))

    def skip_to(self, positions: Mapping[str, int]) -> None:
        """Commit these positions, below which no record is unprocessed: with the open overlay, or alone.

        Only for inputs of which no record waits.
        """
        if any(at < self._positions[name] or self._backlog.holds(name) for name, at in positions.items()):
            raise InvariantError(f"task {self.id} skips {positions} at {self._positions}")
        self._positions.update(positions)
        if not self._open:
            self._entries.append((Commit(EntryKind.COMMIT, dict(positions)), _nothing))

    def close_producer(self) -> None:
        """Close the producer of an idle task, on the executor. The next commit waits for that, and opens a new one."""
        if not self.idle:
            raise InvariantError(f"task {self.id}: its producer is closed while it is in use")
        self._closing = self._environment.executor.submit(self._publisher.rest)

    def leave(self) -> None:
        """Start to release the task: stop processing and firing, commit what is open, and end with a release entry.

        It is released once it is idle. Waiting and retried records are left to the next owner. Without a producer and
        with nothing to commit, it ends without an entry (`runtime/idle_producers.py`).
        """
        self._leaving = True
        self._backlog.clear()
        self._enter_release()

    def inputs_checked(self, at_end: Collection[str]) -> None:
        """The broker has answered: the records of the inputs `at_end` are processed, those of the others are not."""
        for partition in self._partitions:
            if partition.times is not None and partition.number not in self.stopped:
                partition.times.checked({topic_of(name) for name in partition.names.intersection(at_end)})
                self._note_due(partition)

    def advance(self, *, seal: bool = False) -> bool:
        """Retire an applied overlay, fire due steps, process waiting records, and seal if it is due (or if `seal`).

        Returns whether anything changed. Raises the error that ended the commit in progress.
        """
        seal = seal or self._leaving  # so that nothing is open when the release entry is committed
        moved = self._closed_producer()
        if self._under_way is not None and self._under_way.done():
            self._retire(self._outcome(self._under_way))
            moved = True
        if self._next_tick_ms < NEVER_MS and self._environment.clock.wall_ms() >= self._next_tick_ms:
            self._note_all_due()
        if self._due and not self._leaving:
            moved |= self._fire()
        while self._backlog and not self.full:
            waiting = self._take()
            if waiting is None:
                break
            self._process(*waiting)
            moved = True
        free = self._under_way is None and self._closing is None
        if free and self._open and (seal or self._is_due()):
            self._begin(self._seal())
            moved = True
        elif free and self._entries:
            # At the positions of the last commit, because those of the open overlay are not committed yet.
            entry, self._entered = self._entries.popleft()
            at = self.applied.positions
            passed = {name: max(at[name], position) for name, position in entry.positions.items()}
            entry = replace(entry, positions={**at, **passed}, letters=self._letter_count)
            publisher = self._publisher
            self._begin(lambda: publisher.publish(entry))
            moved = True
        if self._meter is not None:
            stuck = self._under_way is not None and self.full
            self._meter.waits(self.id, waiting=stuck and bool(self._backlog))
        return moved

    def _begin(self, commit: Callable[[], AppliedPosition]) -> None:
        self._began_s = self._environment.clock.monotonic_s()
        self._under_way = self._environment.executor.submit(commit)

    def _enter_release(self) -> None:
        if self._open or self._entries or not self.producer_closed:
            self.enter(EntryKind.RELEASE, {})

    def _closed_producer(self) -> bool:
        """Whether the producer of an idle task has been closed since the last call."""
        if self._closing is None or not self._closing.done():
            return False
        closing, self._closing = self._closing, None
        closing.result()
        return True

    def wait(self) -> None:
        """Wait for the commit in progress and retire it. Raises the error that ended it."""
        if self._closing is not None:
            self._closing.result()
        if self._under_way is not None:
            self._retire(self._outcome(self._under_way))

    def stop_waiting(self) -> None:
        """From now on, an unreachable Kafka fails the commit in progress."""
        self._publisher.stop_waiting()

    def close(self) -> Pending[None] | None:
        """Close producer and store. Uncommitted records are discarded.

        A commit in progress still uses both. Then they are closed after it, and a future for that is returned.
        """
        self._pace.close()
        self._caches.forget(table for each in self._partitions for table in each.cached)
        if self._meter is not None:
            self._meter.waits(self.id, waiting=False)
        pending: Pending[Any] | None = self._under_way if self._closing is None else self._closing
        if pending is None or pending.done():
            self._publisher.close()
            return None
        self._publisher.stop_waiting()

        def close_behind() -> None:
            try:
                pending.result()
            except PipelineError as error:
                self._environment.log.info(
                    "final_commit_failed", **task_fields(self.id), **error_fields(error)
                )
            finally:
                self._publisher.close()

        return self._environment.executor.submit(close_behind)

    def _take(self) -> WaitingRecords | None:
        """The next waiting records that may be processed now."""
        return self._backlog.take(self._waits_for_no_timer if self._processor.fires_timers else None)

    def _waits_for_no_timer(self, name: str) -> bool:
        """Whether no timer must fire before the records of an input."""
        return not _waits(self._by_name[name])

    def _is_due(self) -> bool:
        return self.full or self._hurry or self._pace.due(backlog=bool(self._backlog))

    def _process(self, name: str, records: Sequence[Record], failures: int = 0) -> None:
        first = records[0].offset()
        if first < self._positions[name]:
            raise InvariantError(
                f"task {self.id}: {name} gave offset {first}, below the position {self._positions[name]}"
            )
        partition = self._by_name[name]
        self._use(partition)
        if not self._open:
            self._pace.opened()
        if not self._processor.fires_timers:
            self._process_some(partition, name, records, failures)
            return
        allowance = Allowance(self._environment.clock, 0, self._step_room)
        waiting: Sequence[Record] = records
        while waiting and self._fire_timers(partition, allowance):
            waiting = self._process_some(partition, name, waiting, failures)
            failures = 0
        if waiting and partition.number not in self.stopped:
            if failures:
                self._backlog.hold(name, waiting, failures, 0.0)
            else:
                self._backlog.put_back(name, waiting)

    def _process_some(
        self, partition: Partition, name: str, records: Sequence[Record], failures: int
    ) -> Sequence[Record]:
        """Process records. Returns those that must wait until timers are fired."""
        outputs_before, later = len(self.context.outputs), records[:0]
        try:
            handle = self._handle_cautiously if name in self.crashes.suspects else self._handle
            if self._meter is None:
                handle(name, records, failures)
            else:
                with self._meter.handling(self.id):
                    handle(name, records, failures)
            position = records[-1].offset() + 1
            done = len(records)
            if failures:
                self._backlog.settle(name)
        except (PoisonError, RetryError, TimersDueError) as stopped:
            position = stopped.offset
            done = sum(record.offset() < stopped.offset for record in records)
            if isinstance(stopped, PoisonError):
                self._stop(partition, records[done], stopped.error)
            elif isinstance(stopped, TimersDueError):
                later = records[done:]
            else:
                self._backlog.hold(name, records[done:], stopped.failures, stopped.wait_s, stopped.reason)
        if done:
            self._passed(name, records, done, position)
        self._count_outputs(done, outputs_before)
        self._note_due(partition)
        return later

    def _passed(self, name: str, records: Sequence[Record], done: int, position: int) -> None:
        """The first `done` records of an input belong to the open commit."""
        self._positions[name] = position
        self._last = name, records[done - 1].offset()
        self._moved.add(name)
        self._open_records += done
        self.records += done
        self._links.look(records, done)

    def _count_outputs(self, records: int, before: int) -> None:
        """Count the bytes of records, and of the outputs of the open commit from the index `before`."""
        new = self.context.outputs[before:]
        self._open_bytes += sum([len(output[2]) for output in new if output[2]]) + 64 * (records + len(new))

    def _use(self, partition: Partition) -> None:
        """Show handlers the rows of a partition."""
        self._touched[partition.number] = partition
        if partition is not self._current:
            self._current = partition
            self.context.use(
                partition.tables,
                partition.windows,
                partition.times.clock if partition.times else None,
                partition.histories,
                partition.joins,
                partition.timers,
            )
            self._processor.use(partition.dedup, partition.ahead, partition.times)

    def _note_due(self, partition: Partition) -> None:
        """Note whether a partition has due steps."""
        if partition.steps is not None and partition.steps.pending and partition.number not in self.stopped:
            self._due[partition.number] = partition

    def _fire(self) -> bool:
        """Fire due steps, within the limits of `due_steps`. Returns whether any were fired."""
        least = 2 * sum(each.changes for each in self._touched.values()) - self._open_steps
        allowance = Allowance(self._environment.clock, least, self._step_room)
        for number in list(self._due):
            if self.full or not allowance.left:
                break
            self._fire_steps(self._due.pop(number), allowance)
        self._next_tick_ms = self._first_tick_ms()
        return allowance.done > 0

    def _fire_timers(self, partition: Partition, allowance: Allowance) -> bool:
        """Fire the due timers of a partition, as far as possible. Returns whether a record may be processed now."""
        if not _waits(partition):
            return True
        if self.full or not allowance.left:
            return False
        self._fire_steps(partition, allowance, timers=True)
        return partition.number not in self.stopped and not self.full and not _waits(partition)

    @property
    def _step_room(self) -> int:
        """How many due steps the open commit has room for. They fill half of it, so that records find room, too."""
        limit = self._narrowing.limit
        return min(limit - self._open_records, max(1, limit // 2)) - self._open_steps

    def _fire_steps(self, partition: Partition, allowance: Allowance, *, timers: bool = False) -> None:
        """Fire due steps of a partition, or only its timers. If some are left, it is the last one in the next turn."""
        if partition.steps is None:
            return
        before, outputs_before = allowance.done, len(self.context.outputs)
        self._use(partition)
        if not self._open:
            self._pace.opened()
        try:
            with self._meter.handling(self.id) if self._meter is not None else nullcontext():
                fire = partition.steps.fire_timers if timers else partition.steps.fire
                fire(self._processor, allowance, self._narrowing.refused_step)
        except PoisonError as stopped:
            self._stop(partition, self.context.message, stopped.error)
        fired = allowance.done - before
        self._open_steps += fired
        self._last_step = allowance.last or self._last_step
        self._count_outputs(fired, outputs_before)
        self._note_due(partition)

    def _note_all_due(self) -> None:
        """`_note_due` for all partitions."""
        for each in self._partitions:
            self._note_due(each)

    def _first_tick_ms(self) -> int:
        """The wall clock at the next tick of any partition; `NEVER_MS` without `every`."""
        if not any(each.ticks is not None for each in self._partitions[:1]):
            return NEVER_MS
        going = [each.steps for each in self._partitions if each.number not in self.stopped]
        return min((steps.next_tick_ms for steps in going if steps is not None), default=NEVER_MS)

    def _stop(self, partition: Partition, record: Record, error: PipelineError) -> None:
        """Process nothing of a partition from this record on. The others continue, as those of other tasks would."""
        self._backlog.drop(partition.names)
        self._due.pop(partition.number, None)
        self.stopped[partition.number] = error
        self._next_tick_ms = self._first_tick_ms()
        self._hurry = True
        if self.poison is None:
            self._environment.log.error(
                "partition_stopped",
                **task_fields(self.id),
                **record_fields(record),
                **error_fields(error),
            )

    def _handle(self, name: str, records: Sequence[Record], failures: int) -> None:
        topic = topic_of(name)
        for run, refused in self._narrowing.runs(name, records):
            if refused is not None:
                self._condemn(topic, run[0], refused)
                continue
            self.crashes.handling(name, run)
            try:
                if topic == self._replays_topic:
                    process_replays(self._processor, run, failures)
                else:
                    self._processor.process(topic, run, failures)
            finally:
                self.crashes.handled()

    def _handle_cautiously(self, name: str, records: Sequence[Record], failures: int) -> None:
        """Handle records, some of which may crash the process."""
        for part in self.crashes.parts(name, records):
            crash = self.crashes.verdict(name, part[0])
            if crash is None:
                self._handle(name, part, failures)
                continue
            try:
                self._condemn(topic_of(name), part[0], crash)
            except PoisonError:
                self.crashes.try_again(name, part[0])
                raise

    def _condemn(self, topic: str, record: Record, error: NativeCrash | RefusedOutputError) -> None:
        if topic == self._replays_topic:
            condemn_replay(self._processor, record, error)
        else:
            self._processor.condemn(topic, record, error)

    def _seal(self) -> Any:
        """Make the open overlay an immutable commit. Processing continues on a new overlay."""
        delta: dict[bytes, bytes | None] = {}
        for each in self._touched.values():
            delta.update(each.take_writes())
            if each.steps is not None:
                each.steps.plan()  # timers that were set by a function of a due step waited for this moment
            self._note_due(each)
        outputs = self.context.take_outputs()
        commit = Commit(
            EntryKind.COMMIT,
            dict(self._positions),
            delta,
            outputs,
            letters=self._letter_count,
            letters_written=self._letters.take_written(),
            stream_time_ms=self.clock_ms or -1,
            records=self._open_records,
            links=self._links.take(),
        )
        self._overlay.sealed = delta
        self._overlay.written_bytes = 0
        moved = {name: commit.positions[name] for name in self._moved}
        self._sealed = Sealed(moved, self._open_records, self._last, self._open_steps, self._last_step)
        self._sealed_partitions, self._touched = list(self._touched.values()), {}
        self._moved.clear()
        self._hurry = False
        self.outputs += len(outputs)
        self._open_records = self._open_steps = 0
        self._open_bytes = 0
        self._last_step = None
        self._pace.began(outputs, len(self._sealed_partitions))
        publisher = self._publisher
        return lambda: publisher.publish(commit)

    def _outcome(self, commit: Pending[AppliedPosition]) -> AppliedPosition:
        """The applied position after the commit in progress. Raises the error that ended it, and records a refusal."""
        try:
            return commit.result()
        except RefusedError as error:
            self._narrowing.refused(str(self.id), error, self._sealed)
            raise

    def _retire(self, applied: AppliedPosition) -> None:
        """Drop the sealed overlay: the store contains its rows, and reads reach it from now on."""
        self._environment.steps.reached(Step.BEFORE_RETIRE, self.id)
        if applied.seq != self.applied.seq + 1:
            raise FatalTaskError(f"task {self.id}: entry {applied.seq} was applied after {self.applied.seq}")
        self.applied = applied
        self.owned_at_s = self._began_s
        self._narrowing.committed(applied.positions, self._sealed.steps)
        self._overlay.sealed = {}
        self._under_way = None
        self._pace.ended()
        self.commits += self._sealed.records + self._sealed.steps > 0
        self._sealed = Sealed({})
        self._caches.committed(table for each in self._sealed_partitions for table in each.cached)
        self._sealed_partitions = []
        entered, self._entered = self._entered, _nothing
        entered(applied)

"""Runs the handlers of one committed record again, on the state before its commit: `debug_record`.

    1 find the commit that contains the record
    2 restore the state before it, into a directory of the caller
    3 read the records of the commit
    4 run the handlers on those before the record, then on the record, and note its reads, writes and outputs
    5 compare with the journal entry, the output topics and the dead letters

Nothing is committed or produced: the writes stay in memory, and the outputs in a list. The app and its workers are not
disturbed. Effects of handlers outside Kafka, such as HTTP calls, happen again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from typing import Any

from pipeline.api.app import DeclaredApp
from pipeline.api.bindings import Binding
from pipeline.api.context import RuntimeContext, Sender
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.table import TaskOverlay
from pipeline.core.dead_letters import Letter, decode_replay, read_letter
from pipeline.core.inputs import row_prefix
from pipeline.core.names import TaskId, TopicPartition, is_replays
from pipeline.core.recovery import check_identity
from pipeline.errors import ConfigError, InputError
from pipeline.ops.history.committed_outputs import CommittedLetter, CommittedOutput, find_letter, find_output
from pipeline.ops.history.past_states import AtEntry, PastState, restore_at
from pipeline.ops.history.record_commits import (
    CommitRecords,
    RecordCommit,
    find_commit,
    inputs_in,
    records_of,
)
from pipeline.ops.history.tracing import Access, AccessKind, Trace, TracedTable
from pipeline.ports import Output, Record, Stores
from pipeline.runtime.backends import Resources
from pipeline.runtime.calls.plain_call import as_plain
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.dedup import dedup_tables
from pipeline.runtime.task.handler_errors import error_text, error_traceback, handler_name
from pipeline.runtime.task.processor import Processor
from pipeline.runtime.task.record_errors import PoisonError, RetryError
from pipeline.runtime.task.replays import process_replays

__all__ = ["Calls", "DebugRun", "Prepared", "RowComparison", "RunOutput", "debug_record", "prepare"]

_SAME_VERSION = "run the version of the app that made this commit"
Calls = Callable[[Callable[..., None], Any, Any], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run needs, before any handler is called."""

    task: TaskId
    topic: str
    offset: int
    plan: GroupPlan
    senders: Mapping[DeclaredTopic[Any, Any], Sender]
    commit: RecordCommit
    records: CommitRecords


@dataclass(frozen=True, slots=True)
class RunOutput:
    """One output of the run. `committed`: the record in its topic; None if none was found."""

    output: Output
    committed: CommittedOutput | None


@dataclass(frozen=True, slots=True)
class RowComparison:
    """A row that the run wrote, compared with the commit. `in_commit`: whether the commit wrote it.

    `committed`, `written`: the value's bytes; None for a delete.
    """

    in_commit: bool
    committed: bytes | None
    written: bytes | None

    @property
    def same(self) -> bool:
        """Whether both wrote the same value."""
        return self.in_commit and self.committed == self.written


@dataclass(frozen=True, slots=True)
class DebugRun:
    """The result of a run, compared with the commit.

    `outcome`: `handled`, `duplicate`, `skip`, `dead_letter` or `stop`. `error`, `traceback`: of the last attempt, as a
    dead letter has them; empty after success. `accesses`: of all attempts; the writes of a failed attempt were undone.
    `letter`: the committed dead letter of the record, if there is one.
    """

    prepared: Prepared
    past: PastState
    outcome: str
    attempts: int
    error: str
    traceback: str
    accesses: Sequence[Access]
    outputs: Sequence[RunOutput]
    letter: CommittedLetter | None

    @property
    def writes(self) -> dict[int, RowComparison]:
        """How the last write of each row compares with the commit, by its index in `accesses`.

        Failed attempts have none, because their writes were undone.
        """
        if self.outcome != "handled":
            return {}
        last = {
            access.full_key: number
            for number, access in enumerate(self.accesses)
            if access.kind is not AccessKind.READ and access.attempt == self.attempts
        }
        delta = self.prepared.commit.entry.entry.delta
        return {
            number: RowComparison(key in delta, delta.get(key), self.accesses[number].data)
            for key, number in last.items()
        }


def prepare(
    app: DeclaredApp,
    group: DeclaredGroup,
    task: TaskId,
    topic: str,
    offset: int,
    environment: Environment,
    partition: int | None = None,
) -> Prepared:
    """Find the commit of a record, and read the commit's records: steps 1 and 3. No handler is called.

    `partition`: that of the record; default: the number of the task.

    Raises:
        InputError: The record cannot be debugged; the message says why.
        ConfigError: The topics do not match the app.
        FatalTaskError: The journal is damaged.
        UnreachableError: Kafka does not answer.
    """
    if not group.is_replayable:
        raise InputError(
            f"group {group.name} has windows, timers or event times, and its records cannot be debugged: what its "
            "handlers see depends on when its inputs were idle, which no entry of the journal records",
            hint="show the changes of a row: pipeline table history NAME KEY, or all rows after a journal entry: "
            "pipeline table show NAME --task N --at SEQ",
        )
    plans, senders = plan_groups(app, [group], environment)
    plan = plans[0]
    if topic not in plan.identity.inputs:
        raise InputError(
            f"topic {topic} is not an input of group {group.name}",
            hint=f"its inputs: {', '.join(plan.identity.inputs)}",
        )
    place = TopicPartition(topic, task.number if partition is None else partition)
    name = inputs_in(task, environment.cluster).name(place)
    commit = find_commit(task, name, offset, environment)
    records = records_of(task, commit, name, offset, environment)
    return Prepared(task, topic, offset, plan, senders, commit, records)


def debug_record(
    prepared: Prepared, environment: Environment, stores: Stores, call: Calls | None = None
) -> DebugRun:
    """Restore the state before the record's commit, and run the handlers up to and over the record.

    Args:
        prepared: What `prepare` returned.
        environment: For Kafka and the checkpoint store. Its `stores` are not used.
        stores: Where the state is restored: a scratch directory.
        call: Calls each handler of the record, as `call(handler, event, context)`; a debugger, for example.

    Returns:
        The result. Its state is closed.

    Raises:
        InputError: The state before the commit cannot be restored, or a record before this one in the commit fails now.
        ConfigError: The app's topics or tables are not those of that time.
        FatalTaskError: The journal is damaged.
        UnreachableError: Kafka does not answer.
    """
    past = restore_at(prepared.task, AtEntry(prepared.commit.before.entry.seq), environment, stores)
    with closing(past.store), closing(_Run(prepared, past, environment, call)) as run:
        _check_identity(prepared, past)
        for record in prepared.records.before:
            run.advance(record)
        return run.debug(prepared.records.record)


def _check_identity(prepared: Prepared, past: PastState) -> None:
    """Refuse topics and tables that differ from those of the commit."""
    tables = prepared.plan.group.tables
    upgrades = {name: table.key_fingerprint for name, table in tables.items() if table.upgrade is not None}
    where = f"task {prepared.task} at entry {past.applied.seq:,}"
    try:
        changed = check_identity(where, past.applied.identity, prepared.plan.identity, upgrades)
    except ConfigError as error:
        raise InputError(error.message, hint=_SAME_VERSION) from error
    if changed:
        raise InputError(f"{where}: table {changed[0]} had another type", hint=_SAME_VERSION)


async def _awaited(awaitable: Awaitable[Any]) -> None:
    await awaitable


class _Run:
    """The handlers of a task on a past state. The writes stay in memory."""

    def __init__(
        self, prepared: Prepared, past: PastState, environment: Environment, call: Calls | None
    ) -> None:
        task, plan = prepared.task, prepared.plan
        clock = _RecordedClock(prepared.commit.entry.entry.wall_ms)
        self._prepared = prepared
        self._past = past
        self._environment = environment
        self._trace = Trace()
        self._call = call
        self._errors = _Errors()
        self._runner = asyncio.Runner()  # of async handlers
        group = plan.group.with_functions(self._watched)
        overlay = TaskOverlay()
        of_record = prepared.records.record.partition() or 0
        rows = row_prefix(of_record) if past.applied.identity.tasks else b""
        tables: dict[Any, Any] = {
            table: TracedTable(table, past.store, overlay, self._trace, rows)
            for table in group.tables.values()
        }
        self._resources = Resources()
        self._context = RuntimeContext(tables, prepared.senders, self._resources.get)
        topic_ids = {name: facts.topic_id for name, facts in plan.identity.inputs.items()}
        letters = DeadLetters(task, clock, plan.largest_letter, topic_ids)
        self._dedup = dedup_tables(group, past.store, overlay, self._context, clock, rows)
        self._processor = Processor(
            task, group, self._context, overlay, letters, self._errors, self._dedup, topic_ids
        )

    def advance(self, record: Record) -> None:
        """Run the handlers of a record before the one in question. Raises InputError if they fail."""
        try:
            self._until_settled(record)
        except PoisonError as stopped:
            raise InputError(
                f"the record {_name(record)}, which comes before it in the commit, fails now: {stopped.error.message}",
                hint=_SAME_VERSION,
            ) from stopped

    def debug(self, record: Record) -> DebugRun:
        """Run the handlers of the record in question, and compare with what was committed."""
        mark = len(self._context.outputs)
        dropped = self._duplicates()
        self._errors.clear()
        self._trace.active = True
        outcome = "handled"
        try:
            self._until_settled(record)
        except PoisonError as stopped:
            outcome = "stop"
            cause = stopped.__cause__
            self._errors.note(stopped.error if cause is None else cause)
        finally:
            self._trace.active = False
        if self._duplicates() > dropped:
            outcome = "duplicate"
        made = [Output(*output) for output in self._context.outputs[mark:]]
        letters = self._prepared.plan.id.dead_letter_topic
        own = [read[0] for o in made if o.topic == letters and (read := read_letter(list(o.headers)))]
        if outcome == "handled" and self._errors.policy:
            outcome = self._errors.policy
        error = own[-1].error if own else self._errors.text
        outputs = [self._compared(output) for output in made if output.topic != letters]
        return DebugRun(
            self._prepared,
            self._past,
            outcome,
            self._trace.attempt,
            "" if outcome in {"handled", "duplicate"} else error,
            ""
            if outcome in {"handled", "duplicate"}
            else own[-1].traceback
            if own
            else self._errors.traceback,
            tuple(self._trace.accesses),
            outputs,
            self._letter(record),
        )

    def close(self) -> None:
        self._resources.close(lambda awaitable: self._runner.run(_awaited(awaitable)))
        self._runner.close()

    def _until_settled(self, record: Record) -> None:
        """Run the handlers with all their retries, without the waits between them."""
        failures = 0
        while True:
            try:
                if is_replays(record.topic()):
                    process_replays(self._processor, [record], failures)
                else:
                    self._processor.process(record.topic(), [record], failures)
            except RetryError as retry:
                failures = retry.failures
                if self._trace.active:
                    self._trace.attempt = failures + 1
            else:
                return

    def _watched(self, binding: Binding) -> Binding:
        """The handler, called by `call` and with its errors noted while the record in question is run."""
        function = as_plain(binding.function, self._runner) if binding.is_async else binding.function

        @wraps(function)
        def watched(event: Any, context: Any) -> None:
            if not self._trace.active:
                function(event, context)
                return
            self._trace.handler = handler_name(binding)
            try:
                if self._call is not None:
                    self._call(function, event, context)
                else:
                    function(event, context)
            except BaseException as error:
                self._errors.note(error)
                raise

        return Binding(
            binding.topic,
            watched,
            binding.on_error,
            binding.batch,
            binding.retries,
            binding.retry_delay_s,
        )

    def _duplicates(self) -> int:
        return sum(table.dropped.duplicates for table in self._dedup.values())

    def _compared(self, output: Output) -> RunOutput:
        info = self._environment.cluster.describe([output.topic]).get(output.topic)
        commit_ms = self._prepared.commit.entry.entry.wall_ms
        found = find_output(output, commit_ms, info, self._environment) if info is not None else None
        return RunOutput(output, found)

    def _letter(self, record: Record) -> CommittedLetter | None:
        """The dead letter that the commit wrote for the record."""
        topic = self._prepared.plan.id.dead_letter_topic
        info = self._environment.cluster.describe([topic]).get(topic)
        if info is None:
            return None
        replay = decode_replay(record.value()) if is_replays(record.topic()) else None
        place = record.topic(), record.partition(), record.offset()
        key, timestamp_ms, number = record.key(), record.timestamp()[1], 0
        if replay is not None:
            place = replay.topic, replay.partition, replay.offset
            key, timestamp_ms, number = replay.key, replay.timestamp_ms, replay.number
        group = self._prepared.plan.id

        def belongs(letter: Letter) -> bool:
            own = (letter.app, letter.group) in {("", ""), (group.app, group.group)}
            return own and tuple(letter.origin[:3]) == place and letter.replay == number

        sought = Output(topic, key, None, max(0, timestamp_ms))
        return find_letter(
            sought, belongs, self._prepared.commit.entry.entry.wall_ms, info, self._environment
        )


def _name(record: Record) -> str:
    return f"{record.topic()}[{record.partition()}] offset {record.offset():,}"


@dataclass(frozen=True, slots=True)
class _RecordedClock:
    """`ports.Clock` that shows the time of a commit, and does not advance."""

    now_ms: int

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    def wall_ms(self) -> int:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Errors:
    """The last error of a handler. As `ports.Logger` of the processor, it notes the policy that was applied."""

    text: str = ""
    traceback: str = ""
    policy: str = ""

    def clear(self) -> None:
        self.text = self.traceback = self.policy = ""

    def note(self, error: BaseException) -> None:
        self.text, self.traceback = error_text(error), error_traceback(error)

    def info(self, event: str, **fields: Any) -> None:
        """Nothing of it is shown."""

    def warning(self, event: str, **fields: Any) -> None:
        if event == "record_rejected":
            self.policy = str(fields.get("policy", ""))
            if not self.text:  # no handler was called: the record cannot be decoded
                self.text = f"{fields.get('error')}: {fields.get('message')}"

    def error(self, event: str, **fields: Any) -> None:
        """Nothing of it is shown."""

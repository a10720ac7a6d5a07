"""The backend of a group of handlers: its journals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.api.context import Sender
from pipeline.api.declarations import DeclaredTopic
from pipeline.config import WorkerSettings
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId, is_replays
from pipeline.core.notes import Owner
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery_time import RestoreWork
from pipeline.errors import PipelineError
from pipeline.ports import Pending, task_fields
from pipeline.runtime.calls.async_task import AsyncTask
from pipeline.runtime.calls.call_loop import CallLoop
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.commit.journal_reader import last_entries, read_entries
from pipeline.runtime.dead_letter_topics import holds_no_letters
from pipeline.runtime.environment import Environment
from pipeline.runtime.live_task import LiveTask, RestoredTask, RestoreRequest, TaskPosition
from pipeline.runtime.plan import GroupPlan, largest_letter, sender_of
from pipeline.runtime.restore.genesis import ensure_genesis
from pipeline.runtime.restore.progress import RestoreProgress
from pipeline.runtime.restore.restore import PROCESS, RestoredState, restore
from pipeline.runtime.restore.retirement import refuse_retired
from pipeline.runtime.restore.seed import refuse_other_program
from pipeline.runtime.task.cache import CacheBudget
from pipeline.runtime.task.refused_outputs import RefusalSearch
from pipeline.runtime.task.task import Task

__all__ = ["JournalBackend", "find_owner", "owner_after"]

# A fenced worker waits longer than an acquire takes before it reads the new owner.
FENCED_WAIT_S = (1.5, 3.0)

# Without a start offset, an acquire entry further back than this is not searched.
MAX_SEARCHED_ENTRIES = 100


class JournalBackend:
    """`TaskBackend` of one group of handlers."""

    def __init__(
        self,
        plan: GroupPlan,
        senders: Mapping[DeclaredTopic[Any, Any], Sender],
        resources: Any,
        environment: Environment,
        settings: WorkerSettings,
        commit_rate: CommitRate,
        caches: CacheBudget,
        calls: CallLoop,
    ) -> None:
        self._plan = plan
        self._calls = calls
        self._slots = calls.slots_of(plan.group) if plan.group.is_async else None
        self._senders = senders
        self._resources = resources
        self._environment = environment
        self._settings = settings
        self._commit_rate = commit_rate
        self._caches = caches
        self._checked_end: dict[TaskId, int] = {}  # the journal's end at the last check
        self._no_letters = False  # whether the dead-letter topic had records at the start
        self._largest_letter = plan.largest_letter
        self._narrowing: dict[TaskId, RefusalSearch] = {}
        self._journal_id = ""

    @property
    def journal_id(self) -> str:
        return self._journal_id

    def begin(self) -> None:
        """Ensure genesis, and check the replays topic. Refuses a retired app."""
        plan, settings = self._plan, self._settings
        refuse_retired(plan.id, self._environment)
        journal = ensure_genesis(
            plan.id,
            plan.task_count,
            plan.identity,
            settings.replication_factor,
            environment=self._environment,
            retry_backoff_ms=settings.retry_backoff_ms,
            latest=settings.start == "latest",
            allowed=lambda: refuse_other_program(plan, self._environment),
        )
        self._journal_id = journal.topic_id
        plan.check_replays()
        if plan.letters_id:
            self._no_letters = holds_no_letters(plan.id, self._environment)

    def begin_later(self) -> Pending[None]:
        return self._environment.executor.submit(self.begin)

    def begin_restore(self, request: RestoreRequest) -> Pending[RestoredTask]:
        step = _restore_step(self._plan, request, self._environment, self._settings)
        refused = self._narrowing_of(request.task).active

        def restored() -> RestoredTask:
            if refused:
                self._update_limits()
            return _RestoredJournalTask(self, step())

        return self._environment.executor.submit(restored)

    def find_owner(self, task: TaskId, place: TaskPosition | None) -> Pending[Owner | None]:
        return find_owner(task, place if isinstance(place, AppliedPosition) else None, self._environment)

    def begin_check(self, places: Mapping[TaskId, TaskPosition]) -> Pending[set[TaskId]]:
        at = {task: place for task, place in places.items() if isinstance(place, AppliedPosition)}
        return self._environment.executor.submit(lambda: self._taken(at))

    def live(self, task: TaskId, restored: RestoredState) -> LiveTask:
        """A restored task."""
        kind = Task if self._slots is None else partial(AsyncTask, self._calls, self._slots)
        return kind(
            task,
            self._plan,
            restored,
            self._senders,
            self._resources,
            self._environment,
            self._settings,
            self._commit_rate,
            self._caches,
            self._narrowing_of(task),
            self._largest_letter,
            no_letters=self._no_letters,
        )

    def _narrowing_of(self, task: TaskId) -> RefusalSearch:
        return self._narrowing.setdefault(task, RefusalSearch(self._settings.max_records_per_commit))

    def _update_limits(self) -> None:
        """Update what the output topics accept. Runs on any thread: each attribute is replaced atomically."""
        letters = self._plan.id.dead_letter_topic
        now = self._environment.cluster.describe([*(topic.name for topic in self._senders), letters])
        self._senders = {
            topic: sender_of(topic, now[topic.name], self._environment) if topic.name in now else sender
            for topic, sender in self._senders.items()
        }
        if self._largest_letter and letters in now:
            self._largest_letter = largest_letter(now[letters])
        setting = "max.message.bytes"
        self._environment.producers.learn(
            {name: int(info.config[setting]) for name, info in now.items() if setting in info.config}
        )

    def unanswered(self, error: PipelineError) -> bool:  # noqa: ARG002 - the worker logs it for each task
        return False

    def answered(self) -> None:
        """`Maintenance` checks Kafka itself."""

    def poll_problem(self) -> str | None:
        """`Maintenance` checks Kafka itself."""
        return None

    def close(self) -> None:
        """Nothing is held."""

    def _taken(self, places: Mapping[TaskId, AppliedPosition]) -> set[TaskId]:
        """The tasks whose journals have entries after those of this worker. One check runs at a time."""
        reader = self._environment.journals()
        try:
            ends = reader.stable_ends([task.journal for task in places])
            found = set()
            for task, applied in places.items():
                end = ends[task.journal]
                if end in {applied.next_offset, self._checked_end.get(task)}:
                    continue
                # Usually the marker of this worker's own last entry.
                if next(read_entries(task, reader, applied.next_offset, end, None), None) is not None:
                    found.add(task)
                else:
                    self._checked_end[task] = end
            return found
        finally:
            reader.close()


@dataclass(frozen=True, slots=True)
class _RestoredJournalTask:
    """`RestoredTask`."""

    backend: JournalBackend
    restored: RestoredState

    @property
    def applied(self) -> AppliedPosition:
        return self.restored.applied

    @property
    def start(self) -> str:
        return self.restored.start

    @property
    def replayed(self) -> int:
        return self.restored.replayed

    @property
    def seconds(self) -> float:
        return self.restored.seconds

    @property
    def proof_s(self) -> float:
        return self.restored.proof_s

    @property
    def copy_s(self) -> float:
        return self.restored.copy_s

    @property
    def work(self) -> RestoreWork | None:
        return self.restored.work

    def live(self) -> LiveTask:
        return self.backend.live(self.restored.publisher.task, self.restored)

    def close(self) -> None:
        self.restored.publisher.close()


def _restore_step(
    plan: GroupPlan, request: RestoreRequest, environment: Environment, settings: WorkerSettings
) -> Callable[[], RestoredState]:
    """The restore as a step for an executor."""
    task = request.task

    def start_positions(names: Sequence[str]) -> Mapping[str, int]:
        # The source cannot be used here: it answers only on the processing thread, between polls.
        places = {name: plan.names_of(task.number).place(name) for name in names}
        # Replays are always handled from the first one.
        earliest = {
            place for place in places.values() if settings.start == "earliest" or is_replays(place.topic)
        }
        latest = set(places.values()) - earliest
        with closing(environment.journals()) as reader:
            found = {**reader.starts(sorted(earliest)), **reader.highest_ends(sorted(latest))}
        return {name: found[place] for name, place in places.items()}

    def step() -> RestoredState:
        if request.wait_s:
            environment.clock.sleep(request.wait_s)
        if request.closing is not None:
            request.closing.result()
        if request.damage is not None:
            place = environment.stores.set_aside(task)
            environment.log.warning(
                "local_state_set_aside", **task_fields(task), reason=request.damage, path=place
            )
        progress = RestoreProgress(task, environment.clock, environment.log)
        meter = environment.meter
        with (
            environment.tracer.span("restore", task) as span,
            meter.restoring(task, progress) if meter is not None else nullcontext(),
        ):
            restored = restore(
                task,
                settings.worker_id,
                plan.identity,
                start_positions,
                environment,
                settings,
                plan.group.tables,
                process=request.process,
                copy=request.copy_of() if request.copy_of is not None else None,
                progress=progress,
            )
            span.note(seq=restored.applied.seq, replayed=restored.replayed, start=restored.start)
            return restored

    return step


def find_owner(
    task: TaskId, applied: AppliedPosition | None, environment: Environment
) -> Pending[Owner | None]:
    """Find the owner after a pause, on the executor."""
    wait_s = environment.random.uniform(*FENCED_WAIT_S)

    def read_owner() -> Owner | None:
        environment.clock.sleep(wait_s)
        return owner_after(task, applied, environment)

    return environment.executor.submit(read_owner)


def owner_after(task: TaskId, applied: AppliedPosition | None, environment: Environment) -> Owner | None:
    """The last owner that acquired `task` after `applied`, or recently; None if there is none.

    Raises UnreachableError.
    """
    with closing(environment.journals()) as reader:
        bounds = reader.bounds(task.journal)
        if applied is not None and applied.offset >= bounds.start:
            return owner_in(
                entry
                for entry in read_entries(task, reader, applied.offset, bounds.stable_end, None)
                if entry.entry.seq > applied.seq
            )
        lately = last_entries(task.journal, reader, bounds, MAX_SEARCHED_ENTRIES)
        return owner_in(entry for entry in lately if applied is None or entry.entry.seq > applied.seq)


def owner_in(entries: Iterable[JournalEntry]) -> Owner | None:
    """The owner in the last acquire entry; released if a release entry follows. Keeps one entry in memory at a time."""
    owner: Owner | None = None
    for entry in entries:
        kind, body = entry.entry.kind, entry.entry
        if kind is EntryKind.ACQUIRE:
            owner = Owner(body.seq, body.owner, body.extra.get(PROCESS, b"").decode())
        elif kind is EntryKind.RELEASE:
            owner = Owner(body.seq, body.owner, owner.process if owner is not None else "", released=True)
    return owner

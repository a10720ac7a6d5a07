"""Makes checkpoints of all live tasks periodically: `Checkpointer`, called once per turn of the worker.

The life of a checkpoint. The processing thread is the only writer; slow steps run on the executor:

    DUE --a place is free--> UPLOADING --whole--> ENTERED --committed, applied--> CLEANING --> done
                                 |
                                 +--store unreachable--> WAITING --some seconds later--> UPLOADING

    if a task is dropped, so is its checkpoint, in any state except CLEANING

Uploads do not delay processing, with one exception: if the journal has grown beyond a limit since the last checkpoint,
the task reads no more input until there is a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.config import WorkerSettings
from pipeline.core.checkpoint_refs import CHECKPOINTS, encode_kept
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import CheckpointStoreError, PipelineError
from pipeline.ports import Pending, Step, error_fields, task_fields
from pipeline.runtime.checkpoints.upload import CheckpointUpload, Throttle, UploadCache, Uploaded, clean_up
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.task.task import Task

__all__ = ["Checkpointer"]

MAX_UPLOADS = 2  # at a time: bandwidth is the limit, and more uploads at once are not faster
TURN_S = 0.05
RETRY_S = (3.0, 6.0)
JITTER = (0.9, 1.1)


@dataclass(slots=True)
class _Checkpointing:
    """A live task. `due_s`: when the next checkpoint is due. `wait_s`: the earliest time for it."""

    run: GroupRun
    task: Task
    due_s: float
    known: UploadCache
    wait_s: float = 0.0
    attempt: CheckpointUpload | None = None
    upload: Pending[Uploaded] | None = None
    entered: bool = False
    cleaning: Pending[PipelineError | None] | None = None

    @property
    def busy(self) -> bool:
        return self.upload is not None or self.entered or self.cleaning is not None


@dataclass(slots=True)
class _Outage:
    since_s: float
    failures: int = 0


@dataclass(slots=True)
class Checkpointer:
    """Processing thread only. Does nothing without a checkpoint store, or for tasks without a journal."""

    runs: Sequence[GroupRun]
    environment: Environment
    settings: WorkerSettings
    _tasks: dict[TaskId, _Checkpointing] = field(default_factory=dict)
    _known: dict[TaskId, UploadCache] = field(default_factory=dict)
    _ending: list[tuple[CheckpointUpload, Pending[Uploaded] | None]] = field(default_factory=list)
    _outage: _Outage | None = None
    _throttle: Throttle | None = None
    _next_s: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being uploaded, registered or cleaned up."""
        return bool(self._ending) or any(each.busy for each in self._tasks.values())

    def turn(self) -> bool:
        """Do what is due. Returns whether anything changed."""
        now = self.environment.clock.monotonic_s()
        if self.environment.checkpoints is None or now < self._next_s:
            return False
        self._next_s = now + TURN_S
        moved = self._update_tasks(now)
        for each in list(self._tasks.values()):
            moved |= self._advance(each, now)
            self._hold_or_resume(each)
        uploading = sum(each.upload is not None for each in self._tasks.values()) + len(self._ending)
        for each in sorted(self._tasks.values(), key=lambda each: each.due_s):
            if uploading >= MAX_UPLOADS:
                break
            if self._due(each, now):
                self._begin(each)
                uploading += 1
                moved = True
        return moved

    def stop(self) -> None:
        """Cancel the uploads. The current steps end soon."""
        for task in list(self._tasks):
            self._drop(task)

    def close(self) -> None:
        """Remove the copies and end the transfers. Call it after `stop`, once no step is running."""
        for attempt, _ in self._ending:
            attempt.close()
        self._ending.clear()
        if self.environment.checkpoints is not None:
            self.environment.checkpoints.transfers.close()

    def _update_tasks(self, now: float) -> bool:
        live = {
            task.id: (run, task) for run in self.runs for task in run.tasks.values() if isinstance(task, Task)
        }
        for task_id, each in list(self._tasks.items()):
            if task_id not in live or live[task_id][1] is not each.task:
                self._drop(task_id)
        for task_id, (run, task) in live.items():
            if task_id not in self._tasks:
                # The first one is due at a random time of an interval, so that tasks that start together do not stay
                # in step.
                due_s = now + self.environment.random.uniform(0.0, self.settings.checkpoint_interval_s)
                known = self._known.setdefault(task_id, UploadCache())
                self._tasks[task_id] = _Checkpointing(run, task, due_s, known)
        ended = [item for item in self._ending if item[1] is None or item[1].done()]
        for attempt, upload in ended:
            self._ending.remove((attempt, upload))
            attempt.close()
        return bool(ended)

    def _drop(self, task_id: TaskId) -> None:
        each = self._tasks.pop(task_id)
        if each.attempt is not None:
            each.attempt.stopped = True
            self._ending.append((each.attempt, each.upload))

    def _due(self, each: _Checkpointing, now: float) -> bool:
        applied = each.task.applied
        if each.busy or now < each.wait_s or applied.offset == applied.checkpoint:
            return False  # the task has not changed since its last checkpoint
        return now >= each.due_s or applied.bytes_after_checkpoint >= self.settings.checkpoint_journal_bytes

    def _begin(self, each: _Checkpointing) -> None:
        checkpoints = self.environment.checkpoints
        if checkpoints is None:
            return
        if self._throttle is None:
            self._throttle = Throttle(self.settings.checkpoint_bytes_per_s, self.environment.clock)
        if each.attempt is None:
            each.attempt = CheckpointUpload(
                each.task.id,
                self.settings.worker_id,
                each.task.store,
                checkpoints.store,
                self.environment,
                self.settings.checkpoint_grace_s,
                self._throttle,
                each.known,
            )
        attempt, tracer = each.attempt, self.environment.tracer

        def upload() -> Uploaded:
            with tracer.span("checkpoint", each.task.id) as span:
                made = attempt.run()
                span.note(seq=made.ref.seq, bytes=made.ref.size, uploaded_bytes=made.uploaded_bytes)
                return made

        each.upload = self.environment.executor.submit(upload)

    def _advance(self, each: _Checkpointing, now: float) -> bool:
        if each.upload is not None and each.upload.done():
            upload, each.upload = each.upload, None
            try:
                made = upload.result()
            except PipelineError as error:
                self._failed(each, error, now)
            else:
                self._enter(each, made)
            return True
        if each.cleaning is not None and each.cleaning.done():
            cleaning, each.cleaning = each.cleaning, None
            cleanup_error = cleaning.result()
            if cleanup_error is not None:
                self.environment.log.warning(
                    "checkpoint_cleanup_failed", **task_fields(each.task.id), **error_fields(cleanup_error)
                )
            return True
        return False

    def _enter(self, each: _Checkpointing, made: Uploaded) -> None:
        """Register the checkpoint in the journal."""
        attempt, each.attempt = each.attempt, None
        began_s = attempt.began_s if attempt is not None else 0.0
        if attempt is not None:
            attempt.close()
        self._answered()
        each.entered = True
        each.due_s = self.environment.clock.monotonic_s() + self.settings.checkpoint_interval_s * (
            self.environment.random.uniform(*JITTER)
        )
        seconds = round(self.environment.clock.monotonic_s() - began_s, 3)

        def then(applied: AppliedPosition) -> None:
            self._registered(each, made, applied, seconds)

        each.task.enter(EntryKind.CHECKPOINT, {CHECKPOINTS: encode_kept(made.kept)}, then)

    def _registered(
        self, each: _Checkpointing, made: Uploaded, applied: AppliedPosition, seconds: float
    ) -> None:
        environment, task, checkpoints = self.environment, each.task.id, self.environment.checkpoints
        each.entered = False
        environment.log.info(
            "checkpoint_registered",
            **task_fields(task),
            seq=made.ref.seq,
            registered_seq=applied.seq,
            bytes=made.ref.size,
            files=made.files,
            uploaded_files=made.uploaded_files,
            uploaded_bytes=made.uploaded_bytes,
            duration_s=seconds,
        )
        environment.steps.reached(Step.AFTER_CHECKPOINT, task)
        if checkpoints is not None:
            cluster_id, store = applied.identity.cluster_id, checkpoints.store
            each.cleaning = environment.executor.submit(
                lambda: clean_up(task, cluster_id, made, store, environment)
            )

    def _failed(self, each: _Checkpointing, error: PipelineError, now: float) -> None:
        """Retry later: with the same attempt if only the store was unreachable, and not for too long."""
        retry_s = min(self.environment.random.uniform(*RETRY_S), self.settings.checkpoint_interval_s)
        each.wait_s = now + retry_s
        each.due_s = min(each.due_s, each.wait_s)
        if isinstance(error, CheckpointStoreError):
            self._unanswered(each, error, now)
        else:
            self.environment.log.warning(
                "checkpoint_failed", **task_fields(each.task.id), **error_fields(error)
            )
        # No manifest names the uploads yet. When they are this old, `pipeline checkpoints prune` may delete them.
        attempt = each.attempt
        too_old = attempt is not None and now - attempt.began_s > self.settings.checkpoint_grace_s / 2
        if attempt is not None and (too_old or not isinstance(error, CheckpointStoreError)):
            attempt.close()
            each.attempt = None

    def _unanswered(self, each: _Checkpointing, error: CheckpointStoreError, now: float) -> None:
        if self._outage is None:
            self._outage = _Outage(now)
            self.environment.log.warning(
                "checkpoint_store_unavailable",
                **error_fields(
                    error,
                    hint="repair the checkpoint store. Processing continues and no data is lost, but the journal grows "
                    "meanwhile: runbooks/checkpoint-store-unavailable.md",
                ),
                **task_fields(each.task.id),
                journal_bytes=each.task.applied.bytes_after_checkpoint,
                limit_bytes=self.settings.checkpoint_journal_limit_bytes,
            )
        self._outage.failures += 1

    def _answered(self) -> None:
        if self._outage is not None:
            seconds = round(self.environment.clock.monotonic_s() - self._outage.since_s, 1)
            self.environment.log.warning(
                "checkpoint_store_available", unreachable_s=seconds, failures=self._outage.failures
            )
            self._outage = None

    def _hold_or_resume(self, each: _Checkpointing) -> None:
        limit, task = self.settings.checkpoint_journal_limit_bytes, each.task
        grown = task.applied.bytes_after_checkpoint
        # The first checkpoint of a group that was created without a checkpoint store may take longer.
        first = not task.applied.checkpoints and self._outage is None
        over = bool(limit) and grown > limit and not first
        if over == each.run.is_held(task.id.number):
            return
        if over:
            each.run.hold(task.id.number)
            self.environment.log.error(
                "input_paused",
                **task_fields(task.id),
                reason="the journal has grown beyond checkpoint_journal_limit_bytes since the last checkpoint",
                journal_bytes=grown,
                limit_bytes=limit,
                hint="repair the checkpoint store; input resumes after the next checkpoint: "
                "runbooks/checkpoint-store-unavailable.md",
            )
        else:
            each.run.unhold(task.id.number)
            self.environment.log.warning("input_resumed", **task_fields(task.id), journal_bytes=grown)

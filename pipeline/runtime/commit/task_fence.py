"""`TaskFence`: the transactional id of one task, how long it waits for Kafka, and the known end of the journal."""

from __future__ import annotations

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    PipelineError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import error_fields, growing, task_fields
from pipeline.runtime.environment import Environment
from pipeline.transactions.engine import TransactionEngine

__all__ = ["TaskFence"]

MAX_BARRIERS = 5
# Increasing pauses between attempts while Kafka is unreachable.
FENCE_PAUSES_S = (0.1, 5.0)


class TaskFence:
    """Owns the engine of a task's only transactional id.

    `known_end`: the journal's end as its leader last reported it; a read must reach it. `stopping`: raise
    UnreachableError if Kafka is unreachable, instead of waiting. `resting`: the producer was closed because the task is
    idle; a fence is due, and is not the renewal of a failed producer.
    """

    def __init__(self, task: TaskId, environment: Environment, settings: WorkerSettings) -> None:
        self._task = task
        self._environment = environment
        self.engine = TransactionEngine(
            task.transactional_id, environment.producers, environment.clock, settings.retry_backoff_ms
        )
        self.known_end = 0
        self.stopping = False
        self.resting = False

    def fence(self) -> None:
        """Fence all earlier owners of the task. Waits while Kafka is unreachable, until `stopping`."""
        pause_s = growing(*FENCE_PAUSES_S)

        def again(error: PipelineError) -> bool:
            if not isinstance(error, UnreachableError) or self.stopping:
                return False
            self._environment.log.warning(
                "kafka_unreachable", **task_fields(self._task), **error_fields(error)
            )
            self._environment.clock.sleep(pause_s())
            return True

        self.engine.fence(again)

    def rest(self) -> None:
        """Close the producer of an idle task. No transaction is open."""
        self.engine.close()
        self.resting = True

    def barrier(self) -> None:
        """Write a barrier, so that the journal's leader reports the end. For decisions without a commit.

        Raises FatalTaskError if that end is below an earlier one, FencedError, and UnreachableError if no record can be
        written.
        """
        end = self.end_of(self._task.journal)
        if end < self.known_end:
            raise self.tail_lost(f"ends at offset {end}, below {self.known_end}")
        self.known_end = end + 1

    def end_of(self, partition: TopicPartition) -> int:
        """The end of a partition of the task, from an aborted record. Raises FencedError, UnreachableError."""
        reason = ""
        for _ in range(MAX_BARRIERS):
            try:
                ends = self.engine.barrier([partition])
            except (AbortableError, UnknownOutcomeError) as error:
                reason = error.message
                if self.stopping:
                    break
                self.fence()
                continue
            if self.engine.fence_due:
                self.fence()
            return ends[partition]
        raise UnreachableError(f"task {self._task}: {partition} cannot be written to: {reason}")

    def tail_lost(self, what: str) -> FatalTaskError:
        """The error for a journal that ends below an end that its leader reported before."""
        return FatalTaskError(
            f"the journal of task {self._task} {what}: Kafka lost committed records",
            hint="follow runbooks/journal-tail-lost.md before anything is processed",
        )

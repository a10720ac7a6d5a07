"""Every error the package raises on purpose: one class per reaction.

A message says what happened, where, and what to do next. Adapters translate their client's exceptions into
these classes; the worker loop and the command line are the two places that react to them.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AbortableError",
    "CheckpointStoreError",
    "ConfigError",
    "CorruptStateError",
    "DamagedCheckpointError",
    "DamagedStateError",
    "DeliveryError",
    "DisplacedError",
    "FatalTaskError",
    "FencedError",
    "HandlerError",
    "InputError",
    "InvariantError",
    "OutOfRangeError",
    "PipelineError",
    "ProducerClosedError",
    "QueueFullError",
    "RefusedError",
    "RejectedRowsError",
    "RetriableError",
    "SinkUnreachableError",
    "StaleReadError",
    "SupersededError",
    "TruncatedError",
    "UnknownOutcomeError",
    "UnreachableError",
]


class PipelineError(Exception):
    """Base of every expected failure. `hint` is the next thing to do: a command or a runbook."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class ConfigError(PipelineError):
    """A setting, a declaration or a topic's configuration is wrong. Reaction: refuse to start."""


class InputError(PipelineError):
    """What the user asked to read (a file, a line, a key) is wrong. Reaction: stop, say where."""


class UnreachableError(PipelineError):
    """Kafka does not answer. Reaction: wait and try again while running; exit 3 when starting."""

    exit_code = 3


class SinkUnreachableError(UnreachableError):
    """The database of a sink does not answer. Reaction: its group waits and tries again, the others go on.

    `refused`: it does answer, and lets nobody in: a password, a role, a database. Reaction at the start: refuse it.
    """

    def __init__(self, message: str, *, hint: str | None = None, refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class RejectedRowsError(PipelineError):
    """The database refuses a row, for what is in it. Reaction: find its record, which gets its sink's policy.

    `write`: which of the writes it was, by its place; None when that is not known.
    """

    def __init__(self, message: str, *, hint: str | None = None, write: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.write = write


class HandlerError(PipelineError):
    """A record that its handler or its codec cannot take, under the policy `stop`. Reaction: stop the task.

    Everything before the record is committed; the record left nothing behind.
    """


class FatalTaskError(PipelineError):
    """A check of the protocol failed or a limit cannot be met. Reaction: stop the task, repair nothing."""


class OutOfRangeError(FatalTaskError):
    """A partition holds nothing at the position that was asked for. Reaction: find out on which side that is."""


class CorruptStateError(PipelineError):
    """The local state cannot be trusted or written. Reaction: stop the task; restore from the journal."""


class DamagedStateError(CorruptStateError):
    """What was read from the local state fails its checks. Reaction: set it aside, restore from the journal."""


class CheckpointStoreError(PipelineError):
    """The checkpoint store does not answer, refuses, or is full. Reaction: go on without it, and try again later.

    The operator mends the store; until then the journal grows, and a restore that needs a checkpoint waits.
    """


class DamagedCheckpointError(PipelineError):
    """A checkpoint's manifest or object is missing or fails its checks. Reaction: the checkpoint before it."""


class FencedError(PipelineError):
    """A newer owner has taken the task. Reaction: drop the task, touch nothing durable."""


class SupersededError(PipelineError):
    """Somebody else owned the task in between. Reaction: drop its overlays, plan the restore, acquire."""


class DisplacedError(PipelineError):
    """A younger process has this worker's id. Reaction: leave; whoever supervises it must not start it again.

    Two supervisors that both did would take the tasks from each other for ever.
    """

    exit_code = 5


class RetriableError(PipelineError):
    """The same call may simply be made again."""


class TruncatedError(RetriableError):
    """The partition was truncated beyond where it was to be read from. Reaction: look again where it begins."""


class StaleReadError(RetriableError):
    """The broker that answered holds less than the partition's leader. Reaction: ask again, with another client."""


class AbortableError(PipelineError):
    """The open transaction cannot commit. Reaction: abort, renew, rewind to the last entry."""


class RefusedError(AbortableError):
    """The brokers refuse a record of the open transaction for what is in it. Reaction: find its input record.

    The same transaction would be refused again. `topic`: where it was refused.
    """

    def __init__(self, message: str, *, hint: str | None = None, topic: str = "") -> None:
        super().__init__(message, hint=hint)
        self.topic = topic


class UnknownOutcomeError(PipelineError):
    """A commit may or may not have happened. Reaction: renew, and let the journal decide."""


class DeliveryError(PipelineError):
    """Events of a `Producer` were not delivered, or it is not known. Reaction: send them again under the same ids.

    `count`: how many. `events`: the first of them, as (topic, key, id).
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        count: int = 1,
        events: Sequence[tuple[str, bytes | None, bytes]] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.count = count
        self.events = events


class QueueFullError(PipelineError):
    """A producer holds as much as it may. Reaction: nothing was sent; wait, or refuse work oneself."""


class ProducerClosedError(PipelineError):
    """A producer was closed, or its client has failed for good. Reaction: open another one."""


class InvariantError(Exception):
    """A bug in this package, never a condition of the world. Reaction: crash loudly, report it."""

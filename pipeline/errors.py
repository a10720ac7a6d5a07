"""Every error that the package raises on purpose: one class for each reaction.

A message says what happened, where, and what to do next. Adapters translate the exceptions of their clients into these
classes. The worker and the command line react to them, in one place each.
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
    "DeniedError",
    "DisplacedError",
    "FatalTaskError",
    "FencedError",
    "HandlerError",
    "InputError",
    "InvariantError",
    "OutOfRangeError",
    "PipelineError",
    "ProducerClosedError",
    "QueryError",
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
    """Base of every expected failure.

    `str(error)` is the message, and the hint on a line of its own.

    Attributes:
        message: What happened, and where.
        hint: What to do next, such as a command or a runbook. None if there is nothing to suggest.
        exit_code: The exit code of a command that ends with this error.

    Example:
        ```python
        try:
            app.run()
        except PipelineError as error:
            sys.exit(f"{error.message} ({error.hint})")
        ```
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class ConfigError(PipelineError):
    """A setting, a declaration or the configuration of a topic is wrong. The start is refused."""


class DeniedError(ConfigError):
    """Kafka refuses a request, because the user of this client lacks a permission. No data is lost.

    It ends a start, a task or a command, as any ConfigError. A command adds the role that has the permission.
    """


class InputError(PipelineError):
    """Something that the user named, such as a file, a line or a key, is wrong. The command ends."""


class UnreachableError(PipelineError):
    """Kafka does not answer. A worker that runs tries again; a start ends after `startup_wait_s`."""

    exit_code = 3


class SinkUnreachableError(UnreachableError):
    """The database of a sink does not answer. Its group tries again; other groups continue.

    Attributes:
        refused: The database answers, but refuses the connection, for example because of a password, a role or a
            database that does not exist. At the start, the worker then ends.
    """

    def __init__(self, message: str, *, hint: str | None = None, refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class RejectedRowsError(PipelineError):
    """The database refuses the content of a row. The worker finds its record and applies the sink's policy.

    Attributes:
        write: The index of the refused write. None if it is unknown.
    """

    def __init__(self, message: str, *, hint: str | None = None, write: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.write = write


class HandlerError(PipelineError):
    """A handler or a codec failed for a record, and the policy is `stop`. The task stops.

    Everything before the record is committed. Nothing that its handler did is.
    """


class FatalTaskError(PipelineError):
    """A check of the protocol failed, or a limit cannot be met. The task stops, and nothing is repaired."""


class OutOfRangeError(FatalTaskError):
    """A partition has no record at the requested position. The task finds out whether it is too low or too high."""


class CorruptStateError(PipelineError):
    """The local state cannot be trusted or written. The task stops; a restart restores from the journal."""


class DamagedStateError(CorruptStateError):
    """Data of the local state fails its checks. The state is moved aside and restored from the journal."""


class CheckpointStoreError(PipelineError):
    """The checkpoint store does not answer, refuses access, or is full. The worker tries again later.

    Until an operator repairs the store, the journal grows, and a restore that needs a checkpoint waits.
    """


class DamagedCheckpointError(PipelineError):
    """A manifest or an object of a checkpoint is missing or fails its checks. The checkpoint before it is used."""


class FencedError(PipelineError):
    """A newer owner has taken the task or the transactional id. The task is dropped without another write."""


class SupersededError(PipelineError):
    """Another worker owned the task in between. Its overlays are dropped, and it is restored and acquired again."""


class DisplacedError(PipelineError):
    """A newer process has the id of this worker. The process ends and must not be restarted.

    Two supervisors that restarted it would take the tasks from each other permanently.
    """

    exit_code = 5


class RetriableError(PipelineError):
    """The same call can be repeated."""


class TruncatedError(RetriableError):
    """The partition was truncated beyond the position to read. Its start is looked up again."""


class StaleReadError(RetriableError):
    """The broker that answered has less than the partition's leader. The read is repeated with another client."""


class AbortableError(PipelineError):
    """The open transaction cannot commit. It is aborted; for a transaction of a service, run its block again."""


class RefusedError(AbortableError):
    """The brokers refuse the content of a record of the open transaction. The worker finds its input record.

    The same transaction would be refused again.

    Attributes:
        topic: The topic that refused it.
    """

    def __init__(self, message: str, *, hint: str | None = None, topic: str = "") -> None:
        super().__init__(message, hint=hint)
        self.topic = topic


class UnknownOutcomeError(PipelineError):
    """It is unknown whether a commit happened. A task reads its journal to find out."""


class QueryError(PipelineError):
    """No worker gave an answer to a `Reader` in time, or one refused the request. Nothing has changed."""


class DeliveryError(PipelineError):
    """Events of a `Producer` were not delivered, or that is unknown. Send them again under the same ids.

    Attributes:
        count: The number of events.
        events: The first of them, as (topic, key as bytes, id).
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
    """A producer is at its limits. Nothing was sent: wait, or refuse work."""


class ProducerClosedError(PipelineError):
    """A producer is closed, or its client has failed permanently. Open another one."""


class InvariantError(Exception):
    """A bug in this package, never an expected condition. Please report it."""

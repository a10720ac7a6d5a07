"""The world a worker runs in: every port, bundled once at the edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.core.names import TaskId
from pipeline.ports import (
    CheckpointStore,
    Clock,
    Cluster,
    CrashLog,
    Executor,
    JournalReader,
    Logger,
    Members,
    Random,
    Sources,
    Step,
    Steps,
    Stores,
    TransactionalClients,
)
from pipeline.ports.databases import Databases
from pipeline.runtime.crashes import NoCrashLog

__all__ = ["Checkpoints", "Environment", "NoSteps"]


class NoSteps:
    """Production's answer to a named step: nothing."""

    def reached(self, step: Step, task: TaskId) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where checkpoints are kept. `transfers` copies files, a few at a time; its steps wait for no other step."""

    store: CheckpointStore
    transfers: Executor


@dataclass(frozen=True, slots=True)
class Environment:
    """Real adapters in production, fakes in tests. `journals` opens a reader for the calling thread.

    `checkpoints`: None when no checkpoint store is configured. `sink_executor`: makes one for a group of sinks, so
    that a database that is away holds up nobody else; None: `executor` will do.
    """

    cluster: Cluster
    sources: Sources
    producers: TransactionalClients
    members: Members
    journals: Callable[[], JournalReader]
    stores: Stores
    clock: Clock
    random: Random
    executor: Executor
    log: Logger
    steps: Steps
    databases: Databases
    checkpoints: Checkpoints | None = None
    sink_executor: Callable[[], Executor] | None = None
    crash_log: CrashLog = field(default_factory=NoCrashLog)

"""The environment of a worker: all ports in one object, which is built once at the edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.core.names import TaskId
from pipeline.ports import (
    CheckpointStore,
    Clock,
    Cluster,
    CrashLog,
    EventLoop,
    Executor,
    JournalReader,
    Logger,
    Members,
    NoTracer,
    Random,
    Sources,
    Step,
    Steps,
    Stores,
    SystemEventLoop,
    Tracer,
    TransactionalClients,
)
from pipeline.ports.databases import Databases
from pipeline.ports.peers import NoPeers, Peers
from pipeline.runtime.crashes import NoCrashLog
from pipeline.runtime.metrics.meter import Meter

__all__ = ["Checkpoints", "Environment", "NoSteps"]


class NoSteps:
    """`ports.Steps` for production: does nothing."""

    def reached(self, step: Step, task: TaskId) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoint store. `transfers` copies a few files at a time; its steps never wait for another step."""

    store: CheckpointStore
    transfers: Executor


@dataclass(frozen=True, slots=True)
class Environment:
    """Real adapters in production, fakes in tests. `journals` opens a reader for the calling thread.

    `checkpoints`: None if no checkpoint store is configured. `sink_executor`: makes an executor for a sink group, so
    that an unreachable database does not delay other groups; None: `executor` is used. `meter`: counts events for
    metrics; None: nothing is counted. `tracer`: makes spans of commits, restores and checkpoints. `process_began_s`:
    the start of the process on the clock's monotonic time; None if it is unknown. `peers`: watches other workers
    and is watched by them; by default it does neither. `event_loops`: opens the loop for async handlers.
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
    meter: Meter | None = None
    tracer: Tracer = field(default_factory=NoTracer)
    process_began_s: float | None = None
    peers: Peers = field(default_factory=NoPeers)
    event_loops: Callable[[], EventLoop] = SystemEventLoop
    http_address: tuple[str, int] | None = None  # where other processes reach the HTTP port

"""The ports: protocols for everything outside the process. Adapters and in-memory fakes implement them.

All other code uses `from pipeline.ports import X`. The docstrings state which errors of
`pipeline.errors` a method may raise; any other exception is a bug. The same contract tests (tests/contracts) run on
the fakes and on the adapters.
"""

from pipeline.core.records import EARLIEST_MS, Output, Record, kept_timestamp
from pipeline.ports.cluster import Cluster, Members, TopicInfo, TopicSpec
from pipeline.ports.event_loop import EventLoop, SystemEventLoop
from pipeline.ports.producer import (
    EventClient,
    EventClients,
    Report,
    TransactionalClient,
    TransactionalClients,
)
from pipeline.ports.source import JournalBounds, JournalReader, PartitionFailure, Polled, Source, Sources
from pipeline.ports.steps import Step, Steps
from pipeline.ports.store import (
    CheckpointStore,
    CrashLog,
    Ending,
    Snapshot,
    SnapshotFile,
    Staged,
    StateUsage,
    Store,
    StoredObject,
    Stores,
)
from pipeline.ports.system import (
    Attempts,
    Clock,
    Deadline,
    Executor,
    Logger,
    Pending,
    Random,
    SystemClock,
    error_fields,
    growing,
    record_fields,
    task_fields,
)
from pipeline.ports.telemetry import (
    MetricFamily,
    MetricPoint,
    NoTracer,
    Operation,
    Span,
    Tracer,
)

__all__ = [
    "EARLIEST_MS",
    "Attempts",
    "CheckpointStore",
    "Clock",
    "Cluster",
    "CrashLog",
    "Deadline",
    "Ending",
    "EventClient",
    "EventClients",
    "EventLoop",
    "Executor",
    "JournalBounds",
    "JournalReader",
    "Logger",
    "Members",
    "MetricFamily",
    "MetricPoint",
    "NoTracer",
    "Operation",
    "Output",
    "PartitionFailure",
    "Pending",
    "Polled",
    "Random",
    "Record",
    "Report",
    "Snapshot",
    "SnapshotFile",
    "Source",
    "Sources",
    "Span",
    "Staged",
    "StateUsage",
    "Step",
    "Steps",
    "Store",
    "StoredObject",
    "Stores",
    "SystemClock",
    "SystemEventLoop",
    "TopicInfo",
    "TopicSpec",
    "Tracer",
    "TransactionalClient",
    "TransactionalClients",
    "error_fields",
    "growing",
    "kept_timestamp",
    "record_fields",
    "task_fields",
]

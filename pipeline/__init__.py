"""Exactly-once stream processing in Python on Kafka.

Everything that programs import or catch is here, and what their tests import in `pipeline.testing`; the other modules
may change. A name is loaded when it is first used, so that the command starts before the clients of Kafka and RocksDB
are loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.async_context import AsyncContext, Row
    from pipeline.api.bindings import OnError
    from pipeline.api.closed_windows import ClosedWindow
    from pipeline.api.context import Context
    from pipeline.api.custom_codecs import Codec, MessageCodec
    from pipeline.api.declarations import Dedup, Resource, Table, Topic
    from pipeline.api.event import Batch, Event
    from pipeline.api.group import Group
    from pipeline.api.histories import History
    from pipeline.api.history_rows import TaskHistory
    from pipeline.api.joins import Join
    from pipeline.api.sinks import Delete, Postgres, Sink, Sqlite
    from pipeline.api.table import TaskTable
    from pipeline.api.task_timers import TaskTimers
    from pipeline.api.ticks import Tick
    from pipeline.api.timers import FiredTimer, Timers
    from pipeline.api.window_rows import TaskWindow, WindowRow
    from pipeline.api.windows import Hopping, Sessions, Tumbling, Window
    from pipeline.app import App
    from pipeline.config import (
        HttpSettings,
        KafkaSettings,
        OtelSettings,
        ProducerSettings,
        Settings,
        WorkerSettings,
        load_settings,
    )
    from pipeline.errors import (
        AbortableError,
        CheckpointStoreError,
        ConfigError,
        CorruptStateError,
        DeliveryError,
        DisplacedError,
        FatalTaskError,
        FencedError,
        HandlerError,
        InputError,
        InvariantError,
        PipelineError,
        ProducerClosedError,
        QueryError,
        QueueFullError,
        SinkUnreachableError,
        UnknownOutcomeError,
        UnreachableError,
    )
    from pipeline.faust.error_policy import faust_error_policy
    from pipeline.faust.running import faust_running
    from pipeline.processes.embedded import RunningWorker
    from pipeline.producing.delivery import Delivered, Delivery
    from pipeline.producing.kafka_producers import Producer, TransactionalProducer
    from pipeline.producing.transactions import Transaction
    from pipeline.queries.reader import Answer, Reader

__all__ = [
    "AbortableError",
    "Answer",
    "App",
    "AsyncContext",
    "Batch",
    "CheckpointStoreError",
    "ClosedWindow",
    "Codec",
    "ConfigError",
    "Context",
    "CorruptStateError",
    "Dedup",
    "Delete",
    "Delivered",
    "Delivery",
    "DeliveryError",
    "DisplacedError",
    "Event",
    "FatalTaskError",
    "FencedError",
    "FiredTimer",
    "Group",
    "HandlerError",
    "History",
    "Hopping",
    "HttpSettings",
    "InputError",
    "InvariantError",
    "Join",
    "KafkaSettings",
    "MessageCodec",
    "OnError",
    "OtelSettings",
    "PipelineError",
    "Postgres",
    "Producer",
    "ProducerClosedError",
    "ProducerSettings",
    "QueryError",
    "QueueFullError",
    "Reader",
    "Resource",
    "Row",
    "RunningWorker",
    "Sessions",
    "Settings",
    "Sink",
    "SinkUnreachableError",
    "Sqlite",
    "Table",
    "TaskHistory",
    "TaskTable",
    "TaskTimers",
    "TaskWindow",
    "Tick",
    "Timers",
    "Topic",
    "Transaction",
    "TransactionalProducer",
    "Tumbling",
    "UnknownOutcomeError",
    "UnreachableError",
    "Window",
    "WindowRow",
    "WorkerSettings",
    "faust_error_policy",
    "faust_running",
    "load_settings",
]

_HOMES = {
    "AbortableError": "pipeline.errors",
    "Answer": "pipeline.queries.reader",
    "App": "pipeline.app",
    "AsyncContext": "pipeline.api.async_context",
    "Batch": "pipeline.api.event",
    "CheckpointStoreError": "pipeline.errors",
    "ClosedWindow": "pipeline.api.closed_windows",
    "Codec": "pipeline.api.custom_codecs",
    "ConfigError": "pipeline.errors",
    "Context": "pipeline.api.context",
    "CorruptStateError": "pipeline.errors",
    "Dedup": "pipeline.api.declarations",
    "Delete": "pipeline.api.sinks",
    "Delivered": "pipeline.producing.delivery",
    "Delivery": "pipeline.producing.delivery",
    "DeliveryError": "pipeline.errors",
    "DisplacedError": "pipeline.errors",
    "Event": "pipeline.api.event",
    "FatalTaskError": "pipeline.errors",
    "FencedError": "pipeline.errors",
    "FiredTimer": "pipeline.api.timers",
    "Group": "pipeline.api.group",
    "HandlerError": "pipeline.errors",
    "History": "pipeline.api.histories",
    "Hopping": "pipeline.api.windows",
    "Join": "pipeline.api.joins",
    "InputError": "pipeline.errors",
    "InvariantError": "pipeline.errors",
    "HttpSettings": "pipeline.config",
    "KafkaSettings": "pipeline.config",
    "MessageCodec": "pipeline.api.custom_codecs",
    "OnError": "pipeline.api.bindings",
    "OtelSettings": "pipeline.config",
    "PipelineError": "pipeline.errors",
    "Postgres": "pipeline.api.sinks",
    "Producer": "pipeline.producing.kafka_producers",
    "ProducerClosedError": "pipeline.errors",
    "ProducerSettings": "pipeline.config",
    "QueryError": "pipeline.errors",
    "QueueFullError": "pipeline.errors",
    "Reader": "pipeline.queries.reader",
    "Resource": "pipeline.api.declarations",
    "RunningWorker": "pipeline.processes.embedded",
    "Row": "pipeline.api.async_context",
    "Sessions": "pipeline.api.windows",
    "Settings": "pipeline.config",
    "Sink": "pipeline.api.sinks",
    "SinkUnreachableError": "pipeline.errors",
    "Sqlite": "pipeline.api.sinks",
    "Table": "pipeline.api.declarations",
    "TaskHistory": "pipeline.api.history_rows",
    "TaskTable": "pipeline.api.table",
    "TaskTimers": "pipeline.api.task_timers",
    "Tick": "pipeline.api.ticks",
    "Timers": "pipeline.api.timers",
    "TaskWindow": "pipeline.api.window_rows",
    "Topic": "pipeline.api.declarations",
    "Transaction": "pipeline.producing.transactions",
    "TransactionalProducer": "pipeline.producing.kafka_producers",
    "Tumbling": "pipeline.api.windows",
    "UnknownOutcomeError": "pipeline.errors",
    "UnreachableError": "pipeline.errors",
    "Window": "pipeline.api.windows",
    "WindowRow": "pipeline.api.window_rows",
    "WorkerSettings": "pipeline.config",
    "faust_error_policy": "pipeline.faust.error_policy",
    "faust_running": "pipeline.faust.running",
    "load_settings": "pipeline.config",
}

if not TYPE_CHECKING:  # a type checker would take this for a module that has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))

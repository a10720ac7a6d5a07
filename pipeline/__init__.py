"""Exactly-once stream processing in Python on Kafka.

Everything a user imports; the rest of the package may change. A name is loaded when it is first asked for, so that
the command is at work before the clients of Kafka and RocksDB are.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.bindings import OnError
    from pipeline.api.context import Context
    from pipeline.api.custom_codecs import Codec, MessageCodec
    from pipeline.api.declarations import Dedup, Resource, Table, Topic
    from pipeline.api.event import Batch, Event
    from pipeline.api.group import Group
    from pipeline.api.sinks import Delete, Postgres, Sqlite
    from pipeline.api.table import TaskTable
    from pipeline.app import App
    from pipeline.errors import PipelineError
    from pipeline.producing.delivery import Delivered, Delivery
    from pipeline.producing.kafka_producers import Producer, TransactionalProducer

__all__ = [
    "App",
    "Batch",
    "Codec",
    "Context",
    "Dedup",
    "Delete",
    "Delivered",
    "Delivery",
    "Event",
    "Group",
    "MessageCodec",
    "OnError",
    "PipelineError",
    "Postgres",
    "Producer",
    "Resource",
    "Sqlite",
    "Table",
    "TaskTable",
    "Topic",
    "TransactionalProducer",
]

_HOMES = {
    "App": "pipeline.app",
    "Batch": "pipeline.api.event",
    "Codec": "pipeline.api.custom_codecs",
    "Context": "pipeline.api.context",
    "Dedup": "pipeline.api.declarations",
    "Delivered": "pipeline.producing.delivery",
    "Delivery": "pipeline.producing.delivery",
    "Delete": "pipeline.api.sinks",
    "Event": "pipeline.api.event",
    "Group": "pipeline.api.group",
    "MessageCodec": "pipeline.api.custom_codecs",
    "OnError": "pipeline.api.bindings",
    "PipelineError": "pipeline.errors",
    "Postgres": "pipeline.api.sinks",
    "Producer": "pipeline.producing.kafka_producers",
    "Resource": "pipeline.api.declarations",
    "Sqlite": "pipeline.api.sinks",
    "Table": "pipeline.api.declarations",
    "TaskTable": "pipeline.api.table",
    "Topic": "pipeline.api.declarations",
    "TransactionalProducer": "pipeline.producing.kafka_producers",
}

if not TYPE_CHECKING:  # a type checker would take this for a module that has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))

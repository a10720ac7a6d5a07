"""Exactly-once stream processing in Python on Kafka.

Everything a user imports; the rest of the package may change. A name is loaded when it is first asked for, so that
the command is at work before the clients of Kafka and RocksDB are.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.bindings import OnError
    from pipeline.context import Context
    from pipeline.declarations import Dedup, Resource, TableDef, Topic
    from pipeline.errors import PipelineError
    from pipeline.event import Batch, Event
    from pipeline.group import Group
    from pipeline.own_codecs import Codec, MessageCodec
    from pipeline.producer import Producer, TransactionalProducer
    from pipeline.producing.delivery import Delivered, Delivery
    from pipeline.running import App
    from pipeline.sinks.declared import Delete, Postgres, Sqlite
    from pipeline.table import Table

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
    "TableDef",
    "Topic",
    "TransactionalProducer",
]

_HOMES = {
    "App": "pipeline.running",
    "Batch": "pipeline.event",
    "Codec": "pipeline.own_codecs",
    "Context": "pipeline.context",
    "Dedup": "pipeline.declarations",
    "Delivered": "pipeline.producing.delivery",
    "Delivery": "pipeline.producing.delivery",
    "Delete": "pipeline.sinks.declared",
    "Event": "pipeline.event",
    "Group": "pipeline.group",
    "MessageCodec": "pipeline.own_codecs",
    "OnError": "pipeline.bindings",
    "PipelineError": "pipeline.errors",
    "Postgres": "pipeline.sinks.declared",
    "Producer": "pipeline.producer",
    "Resource": "pipeline.declarations",
    "Sqlite": "pipeline.sinks.declared",
    "Table": "pipeline.table",
    "TableDef": "pipeline.declarations",
    "Topic": "pipeline.declarations",
    "TransactionalProducer": "pipeline.producer",
}

if not TYPE_CHECKING:  # a type checker would take this for a module that has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))

"""Exactly-once stream processing in Python on Kafka.

Everything a user imports; the rest of the package may change.
"""

from pipeline.app import Group, OnError
from pipeline.codecs import Codec
from pipeline.context import Context
from pipeline.declarations import Resource, TableDef, Topic
from pipeline.errors import PipelineError
from pipeline.event import Batch, Event
from pipeline.running import App
from pipeline.table import Table

__all__ = [
    "App",
    "Batch",
    "Codec",
    "Context",
    "Event",
    "Group",
    "OnError",
    "PipelineError",
    "Resource",
    "Table",
    "TableDef",
    "Topic",
]

"""What the page of an app shows, read from Kafka: its documents, as `docs/reference/http.md` describes them.

    moves      which worker had which task, when and why, from the notes of the workers
    timeline   acquires, commits, checkpoints and failures of the last minutes, from the ends of the journals
    task       the last entries of a task, the rows that they wrote, and its dead letters
    topology   topics, groups, tables and sinks as a graph, from the declarations or, without them, from Kafka

Each read is bounded in entries and bytes. Nothing here writes, and nothing runs on a processing thread. All modules
read through `Clients`.
"""

from __future__ import annotations

from typing import Protocol

from pipeline.ports import Cluster, JournalReader, Sources

__all__ = ["Clients"]


class Clients(Protocol):
    """Kafka clients, each opened at its first use. Each may raise UnreachableError, ConfigError."""

    @property
    def cluster(self) -> Cluster:
        """The cluster. Several threads may use it."""
        ...

    @property
    def reader(self) -> JournalReader:
        """A reader of journals and other partitions. Several threads may use it."""
        ...

    @property
    def sources(self) -> Sources:
        """Opens sources of records."""
        ...

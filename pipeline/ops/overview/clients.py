"""What the readers of this package need of Kafka: `Clients`."""

from __future__ import annotations

from typing import Protocol

from pipeline.ports import Cluster, JournalReader, Sources

__all__ = ["Clients"]


class Clients(Protocol):
    """Kafka clients, each opened when it is first asked for. Each may raise UnreachableError, ConfigError."""

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

"""The adapters for the databases of sinks: `RealDatabases`. Only this package imports the database clients.

A client is imported only when a sink needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from pipeline.api.sinks import Postgres, Sink, Sqlite
from pipeline.errors import ConfigError
from pipeline.ports.databases import SinkSession

__all__ = ["RealDatabases"]


class RealDatabases:
    """`ports.Databases`. Sessions with one address use the same table of positions, independent of the search path."""

    def __init__(self) -> None:
        self._pinned: dict[str, Any] = {}

    def open(self, sink: Sink[Any, Any], app: str) -> SinkSession:
        if isinstance(sink, Postgres):
            module = import_module("pipeline.databases.postgres")
            pinned = self._pinned.setdefault(sink.address, module.Pinned())
            return cast("SinkSession", module.PostgresSession(sink.dsn, sink.database, app, pinned))
        if isinstance(sink, Sqlite):
            module = import_module("pipeline.databases.sqlite")
            return cast("SinkSession", module.SqliteSession(sink.path, sink.database))
        raise ConfigError(f"{sink!r} is not a sink", hint="use Postgres(...) or Sqlite(...)")

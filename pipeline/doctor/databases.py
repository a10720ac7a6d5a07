"""Checks the databases of an app's sinks: `check_databases`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from pipeline.api.app import DeclaredApp
from pipeline.doctor.findings import Finding, ok, problem
from pipeline.errors import PipelineError
from pipeline.ports.databases import Databases
from pipeline.runtime.sinks.rows import RowMaker

__all__ = ["check_databases"]


def check_databases(app: DeclaredApp, databases: Databases) -> Iterator[Finding]:
    """Connect to each database, and compare the table of each sink with its declaration. Changes nothing."""
    for group in app.groups:
        for bound in group.sinks:
            try:
                with closing(databases.open(bound.sink, app.name)) as session:
                    RowMaker(bound.sink, session)
            except PipelineError as error:
                hint = error.hint or "check the address, the user and the table of the sink"
                yield problem("database", f"group {group.name}: {error.message}", hint)
            else:
                yield ok("database", f"group {group.name}: {bound.sink} can be used")

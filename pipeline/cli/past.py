"""Shared code of the commands that read past states: the moment, clients, scratch directories, the oldest moment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from pipeline.api.app import DeclaredApp
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app
from pipeline.cli.options import CommandWait, print_message, quiet_kafka_settings
from pipeline.config import Settings, load_settings
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskChoice, TaskId
from pipeline.core.records import iso_time
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, InputError
from pipeline.ops.history.past_states import AtEntry, AtTime, Moment, PastState, restore_at
from pipeline.processes.wiring import build_environment
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.environment import Environment
from pipeline.runtime.reset import timestamp_of

__all__ = [
    "CACHE_BYTES",
    "AppOption",
    "PastPlace",
    "moment_of",
    "open_past",
    "origin_of",
    "reach_of",
    "require_app",
    "restored",
    "say_origin",
]

CACHE_BYTES = 8 << 20

AppOption = Annotated[
    str,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        envvar="PIPELINE_APP",
        help="The app of the table. Default: $PIPELINE_APP.",
    ),
]


class PastPlace(NamedTuple):
    """An app, and what is needed to read its past. `target`: MODULE:APP."""

    target: str
    app: DeclaredApp
    environment: Environment
    settings: Settings


def require_app(target: str) -> str:
    """Return MODULE:APP as it was given. Raises ConfigError if it was not."""
    if not target:
        raise ConfigError(
            "the app of the table is not given", hint="add --app MODULE:APP, or set PIPELINE_APP"
        )
    return target


@contextmanager
def open_past(target: str, kafka: str | None, store: str | None) -> Iterator[PastPlace]:
    """Open the clients for Kafka and the checkpoint store, and close them afterwards.

    Raises:
        ConfigError: The app cannot be loaded, or a setting is wrong.
        UnreachableError: Kafka does not answer.
    """
    configure_logs("warning")
    app = find_app(target)
    quiet_kafka_settings(kafka)
    settings = load_settings({"bootstrap_servers": kafka, "checkpoint_store": store})
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    try:
        yield PastPlace(target, app, environment, settings)
    finally:
        environment.executor.close()
        if environment.checkpoints is not None:
            environment.checkpoints.transfers.close()
        environment.cluster.close()


def moment_of(text: str, task: TaskChoice | None) -> Moment:
    """Parse `--at`: a sequence number, which needs a task, or a time with an offset from UTC. Raises InputError."""
    if not text.isdecimal():
        return AtTime(timestamp_of(text, "is not an entry or a time", "a sequence number, or "), text)
    if task is None:
        raise InputError(
            f"--at {text} is the sequence number of an entry, and each task counts its own",
            hint="add --task N, or give a time, as in --at 2026-01-31T00:00:00Z",
        )
    return AtEntry(int(text))


@contextmanager
def restored(task: TaskId, at: Moment, environment: Environment) -> Iterator[PastState]:
    """The state of a task as it was, in a scratch directory below $TMPDIR that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="pipeline-past-") as directory:
        past = restore_at(task, at, environment, RocksStores(Path(directory), CACHE_BYTES))
        with closing(past.store):
            yield past


def origin_of(past: PastState) -> str:
    """The entry that a state is at, and the source of its restore."""
    entry = past.entry.entry
    start = f"checkpoint {past.start.ref.seq:,} and " if past.start is not None else ""
    return f"entry {entry.seq:,} of {iso_time(entry.wall_ms)}, from {start}{counted(past.replayed, 'journal entry')}"


def reach_of(oldest: JournalEntry) -> str:
    """How far back a task's past can be restored."""
    entry = oldest.entry
    what = "the first one" if entry.kind is EntryKind.GENESIS else "the oldest kept checkpoint"
    return f"the oldest possible is entry {entry.seq:,} of {iso_time(entry.wall_ms)}, {what}"


def say_origin(task: TaskId, past: PastState) -> None:
    """Print both on standard error."""
    print_message(f"task {task.number}: {origin_of(past)}; {reach_of(past.oldest)}")

"""`pipeline migrate`: moves an app to inputs with another number of partitions, or to another number of tasks."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any, NamedTuple

import typer

from pipeline.api.app import DeclaredApp
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import app_named
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    print_json,
    print_message,
    quiet_kafka_settings,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import Settings, load_settings
from pipeline.core.names import RECORD_READER, TaskId
from pipeline.core.suggestions import Problem, counted, no_topic
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ops.apps import groups_of, tasks_of
from pipeline.ops.migration.comparing import TopicComparison, compare_histories, compare_last_values
from pipeline.ops.migration.copying import Copied, Copy, copy_task, run_copy
from pipeline.ops.migration.migration import Migration, Survey, survey, unfinished
from pipeline.ops.reading import committed_records
from pipeline.ports import Record, SystemClock
from pipeline.processes.wiring import build_environment, with_worker_id
from pipeline.runtime.reset import timestamp_of
from pipeline.runtime.restore.retirement import retire as retire_tasks
from pipeline.runtime.restore.retirement import revive as revive_tasks

__all__ = ["migrate_app"]

_REPORT_S = 2.0
_FOLLOW_S = 1.0
_SHOWN_KEYS = 5

migrate_app = typer.Typer(
    name="migrate",
    help="Move an app to inputs with another number of partitions, or to another number of tasks.",
    no_args_is_help=True,
)

OldArgument = Annotated[
    str, typer.Argument(metavar="OLD-APP", help="The present app: its name, or MODULE:APP.")
]
NewArgument = Annotated[
    str, typer.Argument(metavar="NEW-APP", help="The app that replaces it: its name, or MODULE:APP.")
]
CopiedOption = Annotated[
    list[str],
    typer.Option(
        "--topic", metavar="OLD=NEW", help="An input topic, and the topic to copy it to. Repeatable."
    ),
]
TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="OLD=NEW",
        help="An input topic, and the topic that it is copied to. Repeatable. Without it, the new app reads the same "
        "topics.",
    ),
]
IncompleteOption = Annotated[
    bool, typer.Option("--incomplete", help="Accept topics whose first records were deleted.")
]


@migrate_app.callback()
def migrate() -> None:
    """Move an app to inputs with another number of partitions, or to another number of tasks.

    See pipeline runbook partitions-changed.
    """


@migrate_app.command()
def plan(
    old: OldArgument,
    new: NewArgument,
    topic: TopicOption = None,
    incomplete: IncompleteOption = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show what would be copied. Changes nothing. Exit code 1 if there is a problem."""
    with _clients(kafka) as found:
        surveyed = _survey(_migration(old, new, topic or []), found, incomplete=incomplete)
        if json:
            print_json(_document(surveyed))
        else:
            _show(surveyed)
        _refuse(surveyed)
        if not surveyed.copies:
            print_message("nothing to copy: start the workers of the new app, which read the same topics")


@migrate_app.command()
def run(
    old: OldArgument,
    new: NewArgument,
    topic: CopiedOption,
    incomplete: IncompleteOption = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Also copy new records, until Ctrl-C or SIGTERM.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as `plan`: change nothing.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Copy each record of the inputs once, up to their present ends. After a crash, run it again.

    Keys, values, headers, timestamps and the order per key are kept. Workers and producers may run meanwhile.
    """
    if dry_run:
        plan(old, new, topic, incomplete, kafka, json)
        return
    configure_logs("warning")
    migration = _migration(old, new, topic)
    with _clients(kafka) as found:
        if not json:
            _show(_survey(migration, found, incomplete=incomplete))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while True:
                surveyed = survey(
                    migration, found.cluster, found.reader, SystemClock(), incomplete=incomplete
                )
                _refuse(surveyed)
                for copy in surveyed.copies:
                    _report(copy, _copy(copy, found.settings), json=json, quiet=follow)
                if not follow:
                    return
                SystemClock().sleep(_FOLLOW_S)
        except KeyboardInterrupt:
            print_message("stopped. To continue, run the same command again")
            raise typer.Exit(0 if follow else 130) from None


@migrate_app.command()
def switch(
    old: OldArgument,
    new: NewArgument,
    topic: TopicOption = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Output topics of both apps to compare: the values of each key in OLD must be its first values in "
            "NEW. Repeatable.",
        ),
    ] = None,
    compare_last: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="The same, but compare only the last value of each key."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Compare only records of OLD before this time, such as 2026-01-31T00:00:00Z.",
        ),
    ] = None,
    retire: Annotated[
        bool,
        typer.Option(
            "--retire",
            help="If nothing is missing, retire OLD-APP: its workers refuse to start from now on.",
        ),
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Report whether the new app can replace the old one, or what is missing (exit code 1).

    It can if the workers of the old app are stopped, its inputs are copied, the new app has processed them, and the
    compared outputs agree. Then let producers write to the new topics. Changes nothing without --retire. Repeat the
    command until nothing is missing.
    """
    migration = _migration(old, new, topic or [])
    before_ms = timestamp_of(before) if before is not None else None
    with _clients(kafka) as found:
        surveyed = _survey(migration, found, incomplete=True)
        problems = unfinished(migration, surveyed, found.cluster, found.reader)
        wanted = _pairs(compare or []), _pairs(compare_last or [])
        for pairs, how in zip(wanted, (compare_histories, compare_last_values), strict=True):
            for one, other in pairs.items():
                problems += _compared(one, other, how, before_ms, found)
        retired = len(_retire(migration, found)) if retire and not problems else 0
    if json:
        said = [_problem(problem) for problem in problems]
        print_json({"ready": not problems, "problems": said, "retired_tasks": retired})
    if problems:
        _say(problems)
        raise typer.Exit(1)
    topics = ", ".join(migration.topics.values())
    then = f". Let producers write to {topics} from now on" if topics else ""
    print_message(f"{migration.new} can replace {migration.old}{then}")
    if retire:
        print_message(f"{migration.old} is retired: its workers refuse to start ({counted(retired, 'task')})")
    else:
        print_message(
            f"to prevent that a worker of {migration.old} is started by mistake, repeat the command with --retire"
        )


@migrate_app.command()
def revive(old: OldArgument, kafka: KafkaOption = None) -> None:
    """Undo `switch --retire`: workers of the old app can start again, and continue at its last position."""
    configure_logs("warning")
    name = app_named(old)
    with _clients(kafka) as found:
        tasks = tasks_of(groups_of(name, found.cluster))
        environment = build_environment(DeclaredApp(name), found.settings)
        done = revive_tasks(tasks, _owner(found.settings), environment, found.settings.worker)
    print_message(
        f"{name} is no longer retired ({counted(len(done), 'task')})" if done else f"{name} is not retired"
    )


class _MigrateClients(NamedTuple):
    """The clients that read Kafka."""

    settings: Settings
    cluster: KafkaCluster
    reader: KafkaJournalReader


@contextmanager
def _clients(kafka: str | None) -> Iterator[_MigrateClients]:
    quiet_kafka_settings(kafka)  # silences the log of the Kafka client
    settings = load_settings({"bootstrap_servers": kafka})
    with (
        closing(KafkaCluster(settings.kafka, CommandWait(settings.kafka))) as cluster,
        closing(KafkaJournalReader(settings.kafka)) as reader,
    ):
        yield _MigrateClients(settings, cluster, reader)


def _migration(old: str, new: str, topics: Sequence[str]) -> Migration:
    return Migration(app_named(old), app_named(new), _pairs(topics))


def _retire(migration: Migration, found: _MigrateClients) -> Sequence[TaskId]:
    configure_logs("warning")
    tasks = tasks_of(groups_of(migration.old, found.cluster))
    environment = build_environment(DeclaredApp(migration.old), found.settings)
    return retire_tasks(tasks, migration.new, _owner(found.settings), environment, found.settings.worker)


def _owner(settings: Settings) -> str:
    return f"migrate on {with_worker_id(settings.worker).worker_id}"


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in found:
            raise InputError(f"{text!r} is not OLD=NEW, or OLD is given twice")
        found[old] = new
    return found


def _survey(migration: Migration, found: _MigrateClients, *, incomplete: bool) -> Survey:
    return survey(migration, found.cluster, found.reader, SystemClock(), incomplete=incomplete)


def _show(surveyed: Survey) -> None:
    if surveyed.copies:
        print_table(_COLUMNS, map(_cells, surveyed.copies))
    for note in surveyed.notes:
        print_message(f"note: {note}")


_COLUMNS = (
    Column("topic"),
    Column("partitions", number=True),
    Column("copied to"),
    Column("partitions", number=True),
)


def _cells(copy: Copy) -> list[Cell]:
    grown = f" (was {copy.before:,})" if len(copy.passes) > 1 else ""
    return [copy.old.name, f"{copy.old.partitions:,}{grown}", copy.new.name, copy.new.partitions]


def _refuse(surveyed: Survey) -> None:
    if surveyed.problems:
        _say(surveyed.problems)
        raise typer.Exit(1)


def _say(problems: Sequence[Problem]) -> None:
    for problem in problems:
        print_message(f"problem: {problem.text}\n  -> {problem.hint}")


def _copy(copy: Copy, settings: Settings) -> Copied:
    app = DeclaredApp(copy_task(copy.new.name).app)  # so that the limits of both topics are known
    for info in (copy.old, copy.new):
        app.topic(info.name, key=bytes | None, value=bytes | None, codec="raw")
    environment = build_environment(app, settings)
    clock = environment.clock
    said_s = clock.monotonic_s()

    def progress(records: int) -> None:
        nonlocal said_s
        if clock.monotonic_s() - said_s >= _REPORT_S:
            said_s = clock.monotonic_s()
            print_message(f"{copy.old.name} -> {copy.new.name}: {counted(records, 'record')}")

    return run_copy(copy, _owner(settings), environment, settings.worker, progress)


def _compared(
    old: str,
    new: str,
    how: Callable[[Iterator[Record], Iterator[Record]], TopicComparison],
    before_ms: int | None,
    found: _MigrateClients,
) -> list[Problem]:
    records = _records(old, found)
    if before_ms is not None:
        records = (record for record in records if record.timestamp()[1] < before_ms)
    result = how(records, _records(new, found))
    print_message(f"{old} and {new}: {counted(result.keys, 'key')} compared, {len(result.differing)} differ")
    if not result.differing:
        return []
    keys = ", ".join(repr(key.decode(errors="replace")) for key in result.differing[:_SHOWN_KEYS])
    text = f"{new} differs from {old} in {counted(len(result.differing), 'key')}: {keys}"
    return [Problem(text, "show the records of a key: pipeline consume TOPIC --key KEY")]


def _records(topic: str, found: _MigrateClients) -> Iterator[Record]:
    info = found.cluster.describe([topic]).get(topic)
    if info is None:
        raise no_topic(topic, found.cluster.topics())
    with closing(KafkaSources(found.settings.kafka).open(RECORD_READER)) as source:
        yield from committed_records(info, found.reader, source, SystemClock())


def _report(copy: Copy, result: Copied, *, json: bool, quiet: bool) -> None:
    """Print the result for one topic. If `quiet`, print nothing if no record was copied."""
    if quiet and not result.records:
        return
    if json:
        pair = {"old_topic": copy.old.name, "new_topic": copy.new.name}
        print_json({**pair, "copied": result.records, "already_copied": result.before})
        return
    text = f"{copy.old.name} -> {copy.new.name}: {counted(result.records, 'record')} copied"
    print_message(f"{text}, {result.before:,} copied by earlier runs" if result.before else text)


def _document(surveyed: Survey) -> Mapping[str, Any]:
    copies = [
        {
            "old_topic": copy.old.name,
            "old_partitions": copy.old.partitions,
            "original_partitions": copy.before,
            "new_topic": copy.new.name,
            "new_partitions": copy.new.partitions,
        }
        for copy in surveyed.copies
    ]
    problems = [_problem(problem) for problem in surveyed.problems]
    return {"copies": copies, "problems": problems, "notes": list(surveyed.notes)}


def _problem(problem: Problem) -> Mapping[str, str]:
    return {"message": problem.text, "hint": problem.hint}

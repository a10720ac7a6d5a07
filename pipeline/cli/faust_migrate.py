"""`pipeline faust migrate`: an application takes over the positions and tables that it had on Faust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from pipeline.api.app import DeclaredApp
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    confirm,
    print_json,
    print_message,
)
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import Settings
from pipeline.config.loading import load_settings_over
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, InputError
from pipeline.faust import fallback_for
from pipeline.faust.migration import (
    Changelog,
    InputPosition,
    Survey,
    move,
    moved_from,
    start_fresh,
    survey,
)
from pipeline.processes.wiring import build_environment
from pipeline.runtime.created_topics import create_new_topics
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan, plan_groups

__all__ = ["migrate"]

_TRANSACTION_TIMEOUT_MS = 600_000


def migrate(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:APP", help="The application: a faust.App, as in revenue:app.")
    ],
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Take over nothing: start with empty tables, at the beginning of the inputs."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Take over the positions and tables of an application that has run on Faust, once.

    Reads Faust's committed offsets and its changelog topics, and changes neither. All workers of Faust must
    be stopped. After a crash, run the command again.
    """
    configure_logs("warning")
    app = find_app(target)
    if not app.replaces:
        raise ConfigError(f"{target} is not a faust.App", hint="this command is for applications of Faust")
    settings = _patient(load_settings_over(fallback_for(app), {"bootstrap_servers": kafka}))
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    origin = moved_from(app.groups[0].id, environment)
    if origin is not None:
        _require_moved(app, origin)
        print_message(f"{app.name} has been moved from Faust already: nothing to do")
    elif fresh:
        _start_fresh(app, settings, environment, dry_run=dry_run, yes=yes)
    else:
        _move(app, target, settings, environment, dry_run=dry_run, yes=yes, json=json)


def _patient(settings: Settings) -> Settings:
    """The settings with a time-out for a transaction that contains all tables."""
    longest_ms = max(_TRANSACTION_TIMEOUT_MS, settings.worker.transaction_timeout_ms)
    return replace(settings, worker=replace(settings.worker, transaction_timeout_ms=longest_ms))


def _require_moved(app: DeclaredApp, origin: str) -> None:
    if origin != app.replaces:
        raise InputError(
            f"{app.name} has already started on this engine, and only a new group can take over Faust's state",
            hint=f"to start again: stop its workers, delete their state directories, then pipeline journal forget "
            f"{app.name} --group {app.groups[0].name}",
        )


def _move(
    app: DeclaredApp,
    target: str,
    settings: Settings,
    environment: Environment,
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> None:
    surveyed = survey(app, environment)
    if json:
        print_json(_document(surveyed, dry_run=dry_run))
    else:
        print_table(_POSITIONS, map(_position_cells, surveyed.positions))
        if surveyed.changelogs:
            print_table(_TABLES, map(_table_cells, surveyed.changelogs))
    for note in surveyed.notes:
        print_message(f"note: {note}")
    for problem in surveyed.problems:
        print_message(f"problem: {problem.text}\n  -> {problem.hint}")
    if surveyed.problems:
        raise typer.Exit(1)
    if dry_run:
        return
    confirm(f"Move {app.name} from Faust?", yes=yes)
    moved = move(surveyed, _plan(app, environment), environment, settings.worker)
    rows = "".join(f", {counted(number, 'row')} of {name}" for name, number in moved.rows.items())
    print_message(f"moved: the positions of {counted(len(surveyed.positions), 'partition')}{rows}")
    print_message(f"start it: pipeline worker {target}. Do not start a worker of Faust again")


def _start_fresh(
    app: DeclaredApp, settings: Settings, environment: Environment, *, dry_run: bool, yes: bool
) -> None:
    print_message(
        f"{app.name} starts with empty tables, at the beginning of its inputs. Records that Faust has processed are "
        "processed again"
    )
    if dry_run:
        return
    confirm(f"Start {app.name} without Faust's state?", yes=yes)
    start_fresh(_plan(app, environment), environment, settings.worker)
    print_message(f"{app.name} has started, and ignores Faust's positions")


def _plan(app: DeclaredApp, environment: Environment) -> GroupPlan:
    """The plan of the group. Creates the topics that a worker would create."""
    create_new_topics(app, environment)
    plans, _ = plan_groups(app, app.groups, environment)
    return plans[0]


_POSITIONS = (
    Column("topic"),
    Column("partition", number=True),
    Column("committed by Faust", number=True),
    Column("position here", number=True),
    Column("not processed", number=True),
)
_TABLES = (Column("table"), Column("changelog"), Column("records, at most", number=True))


def _position_cells(each: InputPosition) -> list[Cell]:
    return [each.place.topic, each.place.partition, each.committed, each.position, each.lag]


def _table_cells(log: Changelog) -> list[Cell]:
    return [log.table.name, log.topic, log.records]


def _document(surveyed: Survey, *, dry_run: bool) -> Mapping[str, Any]:
    return {
        "app": surveyed.app.name,
        "faust_group": surveyed.faust_group,
        "positions": [
            {
                "topic": each.place.topic,
                "partition": each.place.partition,
                "committed": each.committed,
                "position": each.position,
                "end": each.end,
            }
            for each in surveyed.positions
        ],
        "tables": [
            {"table": log.table.name, "changelog": log.topic, "records": log.records}
            for log in surveyed.changelogs
        ],
        "problems": [{"message": each.text, "hint": each.hint} for each in surveyed.problems],
        "notes": list(surveyed.notes),
        "dry_run": dry_run,
    }

"""`pipeline reset MODULE:APP`: forget the state of tasks, and handle their input again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from pipeline.api.app import DeclaredApp
from pipeline.api.group import DeclaredGroup
from pipeline.cli.lookup import find_app
from pipeline.cli.options import CommandWait, JsonOption, KafkaOption, confirm, counted, print_json, say
from pipeline.cli.tables import Cell, Column, print_table
from pipeline.config import load_settings
from pipeline.errors import InputError, PipelineError
from pipeline.processes.wiring import build_environment, with_worker_id
from pipeline.runtime.reset import TaskReset, plan_reset, reset_task, start_at

__all__ = ["reset"]


def reset(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    group: Annotated[str | None, typer.Option(help="One handler group; default: all.")] = None,
    partition: Annotated[
        int | None, typer.Option(help="One task of each group; default: all.", min=0)
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="[TOPIC=]WHERE",
            help="earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z. Once for each topic, "
            "or once for all.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Forget the state of tasks, and handle their input again from a chosen place.

    Outputs of records that are handled again are produced again. Workers may run: each task is fenced first, and
    its worker goes on from the new place within seconds.
    """
    app = find_app(target)
    settings = load_settings({"bootstrap_servers": kafka})
    environment = build_environment(app, settings, wait=CommandWait(settings.kafka))
    chosen = start_at(start or ["earliest"])
    resets = list(plan_reset(app, _groups(app, group), partition, chosen, environment))
    if json:
        for planned in resets:
            print_json(_document(planned, dry_run=dry_run))
    else:
        print_table(_COLUMNS, _rows(resets))
    say(_consequences(resets))
    if dry_run:
        return
    confirm(f"Reset {counted(len(resets), 'task')}?", yes=yes)
    owner = f"reset by {with_worker_id(settings.worker).worker_id}"
    for done, planned in enumerate(resets):
        try:
            seq = reset_task(planned, owner, environment, settings.worker)
        except PipelineError as error:
            raise type(error)(
                f"{error.message}\n{done} of {len(resets)} tasks were reset before that",
                hint=error.hint or "run the command again for the rest, with --group and --partition",
            ) from error
        what = "under epoch {seq}" if planned.plan.group.sinks else "as entry {seq} of its journal"
        say(f"task {planned.task} is reset, {what.format(seq=seq)}")


def _groups(app: DeclaredApp, name: str | None) -> list[DeclaredGroup]:
    found = [group for group in app.groups if name in {None, group.name}]
    if not found:
        known = ", ".join(group.name for group in app.groups)
        raise InputError(f"app {app.name} has no group {name}", hint=f"its groups: {known or 'none'}")
    return found


_COLUMNS = (
    Column("task"),
    Column("topic"),
    Column("position", number=True),
    Column("from", number=True),
    Column("handled again", number=True),
    Column("never handled", number=True),
)


def _rows(resets: Sequence[TaskReset]) -> Iterator[list[Cell]]:
    """A row for each input that something happens to, and at least one for each task: its rows are forgotten."""
    for planned in resets:
        moved = [place for place in planned.inputs if place.again or place.skipped]
        still = [place for place in planned.inputs if place.topic != planned.task.group_id.replays_topic]
        for place in moved or still[:1]:
            yield [
                f"{planned.task.group}/{planned.task.partition}",
                *(place.topic, place.position, place.start, place.again, place.skipped),
            ]


def _document(planned: TaskReset, *, dry_run: bool) -> dict[str, object]:
    inputs = [
        {"topic": i.topic, "position": i.position, "from": i.start, "again": i.again, "never": i.skipped}
        for i in planned.inputs
    ]
    return {
        "task": str(planned.task),
        "seq": planned.seq,
        "inputs": inputs,
        "outputs": list(planned.outputs),
        "dry_run": dry_run,
    }


def _consequences(resets: Sequence[TaskReset]) -> str:
    tables = sorted({f"{r.task.group}.{name}" for r in resets for name in r.plan.group.tables})
    outputs = sorted({name for r in resets for name in r.outputs})
    handled = [r for r in resets if not r.plan.group.sinks]
    again = sum(place.again for r in handled for place in r.inputs)
    lines = []
    if handled:
        lines = [f"forgotten: the rows of {', '.join(tables)}" if tables else "there are no tables to forget"]
    if again:
        lines.append(
            f"produced again: what the handlers send for these records, to any of {', '.join(outputs)}"
        )
    if again and any(r.plan.reads_replays for r in resets):
        lines.append(
            "dead letters of these records are not forgotten: replayed, they would count a second time; "
            "replays that wait are dropped"
        )
    sinks = list(dict.fromkeys(str(bound.sink) for r in resets for bound in r.plan.group.sinks))
    if sinks:
        lines.append(
            f"nothing is deleted in the database; rows of records that are handled again are written again: "
            f"{', '.join(sinks)} (upsert and insert: none is doubled; append: every one is)"
        )
    return "\n".join(lines)

"""`pipeline drill report`: shows, compares and exports the reports of drills."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption, print_json, print_message
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config import load_settings
from pipeline.core.suggestions import counted
from pipeline.drills.page import page_of
from pipeline.drills.report import Report, schema
from pipeline.drills.reports import Reports, compare
from pipeline.errors import InputError

__all__ = ["report_app", "show_report"]

report_app = typer.Typer(help="Show, compare and export the reports of drills.", no_args_is_help=True)

ReportArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPORT", help="An id, a drill (its last report) or a JSON file. Default: the last report."
    ),
]


@report_app.command("list")
def list_(json: JsonOption = False) -> None:
    """Show the reports of this directory, the oldest first."""
    reports = _reports().all()
    if json:
        print_json([each.identity for each in reports])
        return
    rows: list[list[Cell]] = [
        [each.identity.id, each.identity.app, each.verdict, _seconds(each.recovery.measured_s)]
        for each in reports
    ]
    print_table((Column("report"), Column("app"), Column("verdict"), Column("recovery", number=True)), rows)


@report_app.command("show")
def show(name: ReportArgument = "", json: JsonOption = False) -> None:
    """Show a report."""
    report = _reports().find(name)
    if json:
        print_json(report)
    else:
        show_report(report)


@report_app.command("diff")
def diff(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="The earlier report: an id or a JSON file.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later report.")],
    json: JsonOption = False,
) -> None:
    """Show what differs between two reports."""
    found = compare(_reports().find(before), _reports().find(after))
    if json:
        print_json(found)
        return
    print_table(
        (Column("value"), Column("before"), Column("after")), ([d.name, d.before, d.now] for d in found)
    )


@report_app.command("export")
def export(
    name: ReportArgument = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Default: the id, with .html.")
    ] = None,
) -> None:
    """Write a report as one HTML page, which needs no other file and no network."""
    report = _reports().find(name)
    path = to if to is not None else Path(f"{report.identity.id}.html")
    try:
        path.write_text(page_of(report), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", hint="choose another: --to") from error
    print_message(f"wrote {path}")


@report_app.command("schema")
def schema_() -> None:
    """Print the JSON schema of reports."""
    print_json(schema())


def show_report(report: Report) -> None:
    """Print a report for people on standard output."""
    identity, recovery, point = report.identity, report.recovery, report.recovery_point
    began = datetime.fromtimestamp(identity.began_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    typer.echo(f"{identity.drill} on app {identity.app}, {began}: {report.verdict.upper()}")
    typer.echo(f"  hypothesis: {report.hypothesis}")
    typer.echo(f"  target: {report.fault.target}")
    if report.abort_fired:
        typer.echo(f"  aborted: {report.abort_fired}")
    if report.measures_recovery:
        typer.echo(
            f"  recovery: predicted {recovery.predicted_s:.1f} s, measured {_seconds(recovery.measured_s)}, objective "
            f"{recovery.objective_s:g} s; caught up after {_seconds(recovery.caught_up_s)}"
        )
    typer.echo(
        f"  other tasks: longest pause {recovery.unaffected_pause_s:.2f} s, limit {recovery.unaffected_limit_s:g} s"
    )
    intact = "intact" if point.chain_intact else "BROKEN"
    once = "each once" if point.exactly_once else "NOT each once"
    typer.echo(
        f"  journals: {counted(point.entries, 'entry')}, {counted(point.input_offsets, 'input offset')}, {once}; "
        f"chain {intact}"
    )
    if point.states_compared:
        typer.echo(f"  states: {point.states_equal} of {point.states_compared} equal to the replay")
    if point.outputs_compared:
        different = len({effect.topic for effect in point.effects if effect.kind == "output"})
        typer.echo(
            f"  outputs: {point.outputs_compared:,} compared, {counted(different, 'partition')} with differences"
        )
    _show_timeline(report)
    for text in report.deviations:
        typer.echo(f"deviation: {text}")
    for each in report.differences:
        typer.echo(f"since the last run: {each.name} {each.before} -> {each.now}")
    for text in (*report.leftovers, *report.notes):
        typer.echo(f"note: {text}")


def _show_timeline(report: Report) -> None:
    if not report.timeline:
        return
    titles = ("task", "before", "after", "detect", "fence", "acquired", "commit", "caught up")
    columns = [Column(title, number=at > 2) for at, title in enumerate(titles)]
    rows: list[Sequence[Cell]] = [
        [
            each.task + ("" if each.predicted else " *"),
            each.before,
            each.after,
            *map(
                _seconds,
                (each.detect_s, each.fence_s, each.acquired_s, each.first_commit_s, each.caught_up_s),
            ),
        ]
        for each in report.timeline
    ]
    print_table(columns, rows)
    if report.blast_radius.unexpected:
        typer.echo("* touched, and not predicted")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _reports() -> Reports:
    return Reports(load_settings().drills.directory)

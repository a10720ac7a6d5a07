"""`pipeline faust`: what a Faust application uses, what becomes of it on this engine, and its move to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pipeline.cli.faust_migrate import migrate
from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app, find_faust_app
from pipeline.cli.options import JsonOption, print_json, print_message
from pipeline.cli.rendering import Cell, Column, print_table
from pipeline.config.loading import load_settings_over
from pipeline.faust import fallback_for
from pipeline.faust.check import by_feature, line_of, places_of, uses_of
from pipeline.faust.features import Feature, Outcome
from pipeline.faust.uses import Use

__all__ = ["faust_app"]

_PLACES = 3  # of a feature, in the table

faust_app = typer.Typer(
    name="faust",
    help="Check an application of faust-streaming, run its commands, and take over its positions and tables.",
    no_args_is_help=True,
)

FaustArgument = Annotated[
    str, typer.Argument(metavar="MODULE:APP", help="The application: a faust.App, as in revenue:app.")
]


@faust_app.callback()
def faust() -> None:
    """Check an application of faust-streaming, run its commands, and take over its positions and tables.

    See docs/coming-from/faust.md.
    """


@faust_app.command()
def check(target: FaustArgument, json: JsonOption = False) -> None:
    """Show what a Faust application uses, and what is refused, different or the same on this engine.

    Imports the application, and neither runs it nor connects to Kafka. Exit code 1 if something is refused: a worker
    would refuse the application, too.
    """
    app = find_faust_app(target)
    found = by_feature(uses_of(app))
    refused = [use for uses in found.values() for use in uses if use.feature.outcome is Outcome.REFUSED]
    if json:
        print_json(
            {
                "app": app.conf.id,
                "refused": len(refused),
                "uses": [_document(use) for uses in found.values() for use in uses],
            }
        )
    else:
        print_table(_COLUMNS, (_cells(feature, uses) for feature, uses in found.items()))
        for use in refused:
            print_message(f"problem: {line_of(use)}\n  -> {use.feature.hint}")
    if refused:
        raise typer.Exit(1)
    if not json:
        print_message(f"{target} can run with pipeline worker {target}")


faust_app.command()(migrate)


@faust_app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def command(
    target: FaustArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The command of the application.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Those of the command; --help shows them.")
    ] = None,
) -> None:
    """Run a command that the application declares with @app.command.

    It may send to topics, cast to agents and ask them. Tables are in the workers.
    """
    from pipeline.faust.commands import run_command  # noqa: PLC0415 - imports faust

    declared: Any = find_app(target)
    settings = load_settings_over(fallback_for(declared))
    configure_logs("warning", worker="")
    raise typer.Exit(run_command(declared, settings, name, arguments or []))


_COLUMNS = (
    Column("here"),
    Column("in Faust"),
    Column("uses", number=True),
    Column("places"),
    Column("what is different"),
)


def _cells(feature: Feature, uses: Sequence[Use]) -> list[Cell]:
    name = feature.name.replace("`", "")
    return [feature.outcome.value, name, len(uses), places_of(uses, _PLACES) or "-", feature.note]


def _document(use: Use) -> dict[str, Any]:
    return {
        "feature": use.feature.name.replace("`", ""),
        "outcome": use.feature.outcome.value,
        "use": use.what,
        "file": use.place.file if use.place is not None else None,
        "line": use.place.line if use.place is not None else None,
        "note": use.feature.note,
        "hint": use.feature.hint or None,
    }

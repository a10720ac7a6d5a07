"""`pipeline doctor [MODULE:APP]`: checks the settings, the cluster and this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pipeline.api.app import DeclaredApp
from pipeline.cli.lookup import find_app
from pipeline.cli.options import CommandWait, JsonOption, KafkaOption, print_json, table_console
from pipeline.config import load_settings
from pipeline.core.suggestions import counted
from pipeline.doctor.findings import Finding, Level, problem
from pipeline.doctor.run import diagnose
from pipeline.errors import PipelineError

__all__ = ["doctor"]

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red", Level.UNKNOWN: "dim"}
_WIDTH = max(len(level.value) for level in Level)
_AGAIN = "correct this, then run pipeline doctor again"


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP",
            help="The app, as in flights.app:app. Default: run only the checks that need no app.",
        ),
    ] = None,
    kafka: KafkaOption = None,
    config: Annotated[Path | None, typer.Option(help="The settings file. Default: pipeline.toml.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="The state directory of the worker. Default: as set.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check settings, broker, topics, tasks, permissions, partitioner, clock, disk, checkpoint store and databases.

    Each line is ok, warning, problem or not checked, and names the next step. If there is a problem, the exit code
    is 1. The checks change nothing, except that they write and delete a file in the state directory and an object in
    the checkpoint store, and begin a producer with the transactional id APP.GROUP.doctor.
    """
    logging.getLogger("pipeline.kafka").setLevel(logging.CRITICAL + 1)
    found: list[Finding] = []
    for finding in _findings(target, kafka, config, state_dir):
        found.append(finding)
        if not json:
            _print(finding)
    problems = sum(finding.level is Level.PROBLEM for finding in found)
    if json:
        checks = [
            {"check": each.check, "level": each.level.value, "message": each.text, "hint": each.hint or None}
            for each in found
        ]
        print_json({"ok": not problems, "checks": checks})
    else:
        warnings = sum(finding.level is Level.WARNING for finding in found)
        typer.echo(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    if problems:
        raise typer.Exit(1)


def _findings(
    target: str | None, kafka: str | None, config: Path | None, state_dir: Path | None
) -> Iterator[Finding]:
    """The findings. Settings or an app that cannot be loaded are a problem, and the other checks still run."""
    overrides = {"bootstrap_servers": kafka, "state_dir": state_dir}
    file = config if config is not None else Path("pipeline.toml")
    try:
        settings = load_settings(overrides, file=config)
    except PipelineError as error:
        yield problem("settings", error.message, error.hint or _AGAIN)
        return
    app: DeclaredApp | None = None
    if target is not None:
        try:
            app = find_app(target)
        except PipelineError as error:
            yield problem("app", error.message, error.hint or _AGAIN)
    yield from diagnose(app, target or "MODULE:APP", settings, file, CommandWait(settings.kafka))


def _print(finding: Finding) -> None:
    line = Text(f"{finding.level.value:<{_WIDTH}}", style=_STYLES[finding.level])
    line.append(f"  {finding.check}: {finding.text}", style="none")
    if finding.hint:
        line.append(f"\n  -> {finding.hint}", style="none")
    table_console().print(line, soft_wrap=True)

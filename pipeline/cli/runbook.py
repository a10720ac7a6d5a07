"""`pipeline runbook`: prints the runbooks that errors and alerts name, also where only the wheel is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError
from pipeline.installation import runbooks_dir

__all__ = ["runbook"]


def runbook(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The name in the error or the alert, such as poison-record."),
    ] = None,
) -> None:
    """Print a runbook: the steps that repair a problem. Errors name runbooks, such as runbooks/poison-record.md.

    Without NAME, list all runbooks. Run the commands of a runbook in the directory of the app, with the settings of the
    workers; steps that need a worker's host name it. The examples use the app flight-delays in delays:app and worker b.
    """
    pages = {path.stem: path for path in sorted(runbooks_dir().glob("*.md"))}
    if name is None:
        width = max(map(len, pages))
        for stem, path in pages.items():
            typer.echo(f"{stem:<{width}}  {_title(path)}")
        return
    # Errors name a file, alerts a page of the site: runbooks/NAME.md, runbooks/NAME/ or https://.../runbooks/NAME/.
    page = pages.get(name.rstrip("/").rpartition("/")[2].removesuffix(".md"))
    if page is None:
        raise InputError(
            f"there is no runbook {name!r}{did_you_mean(name, pages)}",
            hint="list all runbooks: pipeline runbook",
        )
    text = page.read_text(encoding="utf-8")
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text, nl=False)


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as page:
        return page.readline().lstrip("# ").strip()

"""Writes the reference pages that follow from the code, at each build, so that they cannot be outdated.

Commands come from the command line itself, names of the API from `__all__`, error classes from the
package. Folders without a page of their own get a list of their pages.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from typer.main import get_command

import pipeline
import pipeline.errors
import pipeline.testing
from pipeline.cli.main import assemble

__all__ = ["generated_pages"]

_HELP_WIDTH = 84
_LISTED_FOLDERS = {
    "runbooks": (
        "Runbooks",
        """A page for each cause of a failed drill, an alert or an error. `pipeline runbook NAME` prints the same page.

Run the commands in the directory of the app, with the settings of the workers; steps that need a worker's host name it.
The examples use the app `flight-delays` in `delays:app`, the worker `b`, its state directory `state/b` and its log
`worker.log`.""",
    ),
    "decisions": (
        "Decisions",
        "Design decisions, with the reasons and the alternatives that were not chosen.",
    ),
}


def generated_pages(pages: Path) -> dict[str, str]:
    """The text of each generated page by its place; `pages` has the written pages already."""
    found = {
        "reference/commands.md": _commands(),
        "reference/api/pipeline.md": _api(
            "pipeline",
            "pipeline",
            lambda value: not _is_error(value) and not _is_settings(value),
        ),
        "reference/api/errors.md": _api("pipeline", "Errors", _is_error),
        "reference/api/testing.md": _api("pipeline.testing", "pipeline.testing", lambda _: True),
        "reference/error-classes.md": _error_classes(),
    }
    settings = _api("pipeline", "Settings", _is_settings)
    if ":::" in settings:
        found["reference/api/settings.md"] = settings
    for folder, (title, opening) in _LISTED_FOLDERS.items():
        if not (pages / folder / "index.md").exists():
            found[f"{folder}/index.md"] = _list_of_pages(pages / folder, title, opening)
    return found


def _list_of_pages(folder: Path, title: str, opening: str) -> str:
    lines = [f"# {title}", "", opening, ""]
    for page in sorted(folder.glob("*.md")):
        heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if heading is None:
            raise SystemExit(f"{page} does not begin with a heading")
        lines.append(f"- [{heading[1]}]({page.name})")
    return "\n".join(lines) + "\n"


def _commands() -> str:
    lines = [
        "# Commands",
        "",
        "The help of every command. [The command line](cli.md) describes exit codes and conventions.",
    ]
    root: Any = get_command(assemble())
    for command, context in _walk(
        root, root.context_class(root, info_name="pipeline", terminal_width=_HELP_WIDTH)
    ):
        depth = "##" if context.parent is None or context.parent.parent is None else "###"
        lines += [
            "",
            f"{depth} {context.command_path}",
            "",
            "```text",
            command.get_help(context).rstrip(),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _walk(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """A command and all commands below it, in the order of the help."""
    yield command, context
    if hasattr(command, "commands"):
        for name in command.list_commands(context):
            below = command.commands[name]
            if not below.hidden:
                inner = below.context_class(below, info_name=name, parent=context, terminal_width=_HELP_WIDTH)
                yield from _walk(below, inner)


def _api(module_name: str, title: str, belongs: Any) -> str:
    module: ModuleType = pipeline if module_name == "pipeline" else pipeline.testing
    lines = [f"# {title}", "", f"Import these names from `{module_name}`.", ""]
    for name in _public_names(module):
        if belongs(getattr(module, name)):
            lines += [f"::: {module_name}.{name}", ""]
    return "\n".join(lines)


def _public_names(module: ModuleType) -> list[str]:
    """`__all__`, or else what the module has that is its own package's and is not a module."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed, key=_drivers_first)
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("pipeline.")
    ]
    return sorted(names, key=_drivers_first)


def _drivers_first(name: str) -> tuple[bool, str]:
    """`TestDriver` and `TestProducer` before the parts that they are made of."""
    return not name.startswith("Test"), name


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _is_settings(value: object) -> bool:
    return isinstance(value, type) and value.__name__.endswith("Settings")


def _error_classes() -> str:
    lines = [
        "# Error classes",
        "",
        "Every class of `pipeline.errors`. The exit code is that of a command which ends with the error.",
        "What an app does about errors of handlers and records: [errors of records](errors.md).",
        "",
        "| class | base | exit code | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name in pipeline.errors.__all__:
        found = getattr(pipeline.errors, name)
        meaning = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split()).replace("|", "\\|")
        code = getattr(found, "exit_code", 1)
        lines.append(f"| `{name}` | `{found.__bases__[0].__name__}` | {code} | {meaning} |")
    return "\n".join(lines) + "\n"

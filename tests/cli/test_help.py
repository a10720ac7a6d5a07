"""The help of every command, as it is on a terminal of 80 columns: it can be read, and what it shows can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipeline.cli.main import COMMANDS, GROUPS, assemble
from pipeline.core.suggestions import counted


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from _paths(below, (*path, name))


APP = assemble()
PATHS = list(_paths(get_command(APP)))

each_command = pytest.mark.parametrize("path", PATHS, ids=lambda path: "-".join(path) or "pipeline")


def _help(path: tuple[str, ...]) -> str:
    result = CliRunner(env={"COLUMNS": "80", "TERM": "xterm"}).invoke(APP, [*path, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@each_command
def test_help_has_nothing_that_cannot_be_typed(path: tuple[str, ...]) -> None:
    """Braces, types in angle brackets and doubled brackets are the library's words, and not the user's."""
    shown = _help(path)
    assert not re.search(r"[<>{}│╭]|\[\[|range\]|x>=", shown), shown
    assert all(len(line) <= 80 for line in shown.splitlines()), shown


@each_command
def test_help_says_what_each_option_does(path: tuple[str, ...]) -> None:
    """An option without a text is one that has to be tried out."""
    command: Any = get_command(APP)
    for name in path:
        command = command.commands[name]
    context = command.make_context("pipeline", [], resilient_parsing=True)
    for parameter in command.get_params(context):
        assert parameter.hidden or parameter.help, parameter.opts


@each_command
def test_the_lines_of_a_paragraph_of_help_are_filled(path: tuple[str, ...]) -> None:
    """A line that ends in the middle of a sentence looks as if something was missing."""
    text = re.split("Arguments:|Options:", _help(path).partition("\n\n")[2])[0]
    for paragraph in text.split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip()]
        for line, following in pairwise(lines):
            assert len(line) + 1 + len(following.split()[0]) > 74, f"{line!r} is followed by {following!r}"


def test_usage_names_arguments_as_they_are_typed() -> None:
    """It is what is copied."""
    usages = {
        ("worker",): "Usage: pipeline worker [OPTIONS] MODULE:APP\n",
        ("deadletters", "replay"): "Usage: pipeline deadletters replay [OPTIONS] MODULE:APP [ID]...\n",
        ("produce",): "Usage: pipeline produce [OPTIONS] TOPIC FILE...\n",
        ("runbook",): "Usage: pipeline runbook [OPTIONS] [NAME]\n",
        ("topics",): "Usage: pipeline topics [OPTIONS] COMMAND ...\n",
    }
    for path, usage in usages.items():
        assert _help(path).startswith(usage)
    assert "  --weight N  " in _help(("worker",))
    assert "  --log-level debug|info|warning|error\n" in _help(("worker",))


def test_the_first_page_lists_the_commands_and_exit_codes() -> None:
    """Scripts are written from it."""
    shown = _help(())
    shown_groups = shown.partition("Start:")[2]
    listed = re.findall(r"^  ([a-z]+) {2,}\w", shown_groups, re.MULTILINE)
    assert listed == [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)
    assert "..." not in shown_groups
    codes = re.findall(r"^  (\d+) +\w|^  (\d+) +`", shown.partition("Exit codes:\n")[2], re.MULTILINE)
    assert [int(plain or quoted) for plain, quoted in codes] == [0, 1, 2, 3, 4, 5, 6, 7, 130]


@pytest.mark.parametrize(
    ("count", "what", "text"),
    [
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
        (0, "key", "0 keys"),
        (1_000, "record", "1,000 records"),
    ],
)
def test_counted_things_are_in_the_plural(count: int, what: str, text: str) -> None:
    """`2 entrys` reads as a mistake."""
    assert counted(count, what) == text

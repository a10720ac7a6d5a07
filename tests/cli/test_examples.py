"""The example in the help of each command."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli.help import EXAMPLES
from pipeline.cli.main import assemble
from tests.cli.test_help import PATHS, _help

ROOT: Any = get_command(assemble())


def _at(path: tuple[str, ...]) -> Any:
    command = ROOT
    for name in path:
        command = command.commands[name]
    return command


LEAVES = [path for path in PATHS if path and not hasattr(_at(path), "commands") and not _at(path).hidden]


def test_every_command_has_an_example() -> None:
    """A reader copies an example before reading the options."""
    assert sorted(EXAMPLES) == sorted(" ".join(path) for path in LEAVES)


@pytest.mark.parametrize("path", LEAVES, ids="-".join)
def test_the_example_is_a_valid_command_line(path: tuple[str, ...]) -> None:
    """An example with a renamed option fails at the first thing that a new user types."""
    example = EXAMPLES[" ".join(path)]
    program, *words = shlex.split(example)
    assert (program, tuple(words[: len(path)])) == ("pipeline", path)
    _at(path).make_context(" ".join(path), words[len(path) :])
    assert _help(path).endswith(f"\nExample:\n  {example}\n")

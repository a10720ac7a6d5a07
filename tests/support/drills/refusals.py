"""The refusals of drills: those in the code, and those that a run of tests reaches.

A refusal is a `raise` of a PipelineError in `pipeline/drills`. Loaded as a plugin of pytest (`-p`), this module appends
the place of each one that is reached to the file that `$REACHED_REFUSALS` names.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pipeline.drills
from pipeline.errors import PipelineError

__all__ = ["REACHED", "Refusal", "reached_in", "refusals"]

REACHED = "REACHED_REFUSALS"
_DRILLS = Path(pipeline.drills.__file__).parent


class Refusal(NamedTuple):
    """One `raise`. `text`: its class and first argument. `hint`: whether it says what to do next."""

    file: str
    line: int
    last_line: int
    text: str
    hint: bool

    def __str__(self) -> str:
        return f"pipeline/drills/{self.file}:{self.line}: {self.text}"


def refusals() -> list[Refusal]:
    """All refusals in the code."""
    return [found for path in sorted(_DRILLS.glob("*.py")) for found in _refusals_in(path)]


def reached_in(file: Path) -> set[Refusal]:
    """The refusals that a run of tests has reached, by the file that it wrote."""
    lines = {tuple(line.split(":")) for line in file.read_text(encoding="utf-8").splitlines()}
    return {
        each
        for each in refusals()
        if any(name == each.file and each.line <= int(line) <= each.last_line for name, line in lines)
    }


def _refusals_in(path: Path) -> Iterator[Refusal]:
    module = importlib.import_module(f"pipeline.drills.{path.stem}")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            if issubclass(getattr(module, name), PipelineError):
                text = f"{name}: {ast.unparse(node.exc.args[0])}"
                hint = any(each.arg == "hint" for each in node.exc.keywords)
                yield Refusal(path.name, node.lineno, node.end_lineno or node.lineno, text, hint)


def pytest_configure() -> None:
    """Note where each error is made from now on."""
    original = PipelineError.__init__

    def noting(self: PipelineError, message: str, *, hint: str | None = None) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_locals.get("self") is self:  # constructors of subclasses
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        if path.parent == _DRILLS:
            with Path(os.environ[REACHED]).open("a", encoding="utf-8") as file:
                file.write(f"{path.name}:{frame.f_lineno}\n")
        original(self, message, hint=hint)

    pytest.MonkeyPatch().setattr(PipelineError, "__init__", noting)

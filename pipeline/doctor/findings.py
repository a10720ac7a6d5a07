"""The result of a check: `Finding`. `run_check` turns every failure of a check into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import PipelineError

__all__ = ["Finding", "Level", "ok", "problem", "run_check", "unknown", "warning"]


class Level(StrEnum):
    """How bad a finding is. UNKNOWN: it could not be checked."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the output. `hint`: the next command or step; empty if there is nothing to do."""

    check: str
    level: Level
    text: str
    hint: str = ""


def ok(check: str, text: str) -> Finding:
    """A check that passed."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, hint: str) -> Finding:
    """Something that works, and may fail or lose data later."""
    return Finding(check, Level.WARNING, text, hint)


def problem(check: str, text: str, hint: str) -> Finding:
    """Something that prevents a worker from working, or makes its results wrong."""
    return Finding(check, Level.PROBLEM, text, hint)


def unknown(check: str, text: str, hint: str = "") -> Finding:
    """Something that could not be checked, and why."""
    return Finding(check, Level.UNKNOWN, text, hint)


def run_check(check: str, findings: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of one check. A check that fails itself is a problem, and ends no other check."""
    found: list[Finding] = []
    try:
        found.extend(findings())
    except PipelineError as error:
        found.append(
            problem(check, error.message, error.hint or "correct this, then run pipeline doctor again")
        )
    except Exception as error:  # noqa: BLE001 - a diagnosis must not end in a traceback
        hint = "this is a bug of pipeline doctor: please report it"
        found.append(problem(check, f"the check failed with {type(error).__name__}: {error}", hint))
    return found

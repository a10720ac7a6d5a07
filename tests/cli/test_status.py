"""`pipeline status` as people see it."""

from __future__ import annotations

import time
from io import StringIO

from rich.console import Console

from pipeline.cli.status import _view
from pipeline.core.dead_letter_count import OpenLetters
from pipeline.core.names import GroupId, TaskId
from pipeline.core.problem import Problem
from pipeline.runtime.status import AppStatus, TaskPhase, TaskStatus, WorkerStatus
from pipeline.runtime.status.dead_letter_tallies import GroupLetters

TASK = TaskId("flight-delays", "main", 3)


def shown(found: AppStatus) -> list[str]:
    """On a terminal of the usual width."""
    out = StringIO()
    Console(file=out, width=80).print(_view(found, 80), crop=False)
    return out.getvalue().splitlines()


def test_each_value_stands_under_its_heading_and_fits_a_usual_terminal() -> None:
    """A table whose columns slip says something else than what is so."""
    live = TaskStatus(TASK, TaskPhase.LIVE, "host-1", 42, 7, {"flights": 12}, 1_000, restore_s=1.5)
    workers = [WorkerStatus("host-1", "1-x", 1, 1, waiting=False)]
    problem = Problem("something is wrong", "mend it")
    lines = shown(AppStatus("flight-delays", [live], workers, [problem]))
    heading, row = lines[2], lines[3]
    places = {"task": "main/3", "worker": "host-1", "phase": "live"}
    assert {
        name: row[heading.index(name) :].startswith(value) for name, value in places.items()
    } == dict.fromkeys(places, True)
    numbers = {"lag": "7", "last entry": "ago", "restore": "~1.5 s"}
    assert {
        name: row[: heading.index(name) + len(name)].endswith(f" {value}") for name, value in numbers.items()
    } == dict.fromkeys(numbers, True)
    assert heading.split() == [
        "task",
        "worker",
        "phase",
        "lag",
        "entry",
        "last",
        "entry",
        "checkpoint",
        "restore",
    ]
    assert "1 of 1 task live, lag 7" in lines
    assert "workers: host-1 (1 task)" in lines
    assert lines[-2:] == ["problem: something is wrong", "  -> mend it"]


def test_open_dead_letters_are_shown_by_group_with_their_rate() -> None:
    """Whether it continues is the first question; what is not counted must not pass for zero."""
    main = GroupLetters(
        GroupId("flight-delays", "main"), OpenLetters(2_118, True, 34.6, time.time_ns() // 1_000_000 - 3_000)
    )
    audit = GroupLetters(GroupId("flight-delays", "audit"), OpenLetters(0, False, 0.0, 0))
    lines = shown(AppStatus("flight-delays", [], [], [], [main, audit]))
    (first,) = [line for line in lines if "group main" in line]
    assert first.startswith("dead letters of group main: 2,118 open, 35 in the last minute, the last ")
    assert first.endswith(" s ago")
    second = lines.index("dead letters of group audit: 0 open")
    assert "dead letters of earlier releases are counted" in lines[second + 1]
    assert all(len(line) <= 80 for line in lines)

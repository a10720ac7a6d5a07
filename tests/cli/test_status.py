"""`pipeline status` as people see it, on terminals of two sizes and without a terminal."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
import typer
from rich.console import Console, Group

from pipeline.cli import status as cli_status
from pipeline.cli.status import print_safety
from pipeline.cli.status_screen import Space, screen
from pipeline.core.dead_letter_count import OpenLetters
from pipeline.core.names import GroupId, TaskId
from pipeline.core.suggestions import Problem
from pipeline.runtime.status import AppStatus, TaskPhase, TaskStatus, WorkerStatus
from pipeline.runtime.status.app_status import GroupLetters
from pipeline.runtime.status.problems import letter_problems, problems_of
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

NOW_MS = 1_800_000_000_000
SMALL, LARGE = Space(80, 24), Space(120, 40)
SIZES = pytest.mark.parametrize("space", [SMALL, LARGE], ids=["80x24", "120x40"])
RETRIED = (
    "record flights[{0}] offset {0}7 is retried: 3 attempts failed, the last with ConnectionError: refused"
)


def shown(found: AppStatus, space: Space = SMALL, *, tasks: bool = False) -> list[str]:
    """The lines as the terminal shows them: it wraps those that are too long."""
    out = StringIO()
    console = Console(file=out, width=space.width, height=space.height)
    console.print(Group(screen(found, NOW_MS, space, tasks=tasks)), crop=False)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    width = space.width or 10_000
    return [line[at : at + width] for line in lines for at in range(0, max(1, len(line)), width)]


def task(
    group: str, partition: int, phase: TaskPhase = TaskPhase.LIVE, problem: str = "", lag: int = 7
) -> TaskStatus:
    return TaskStatus(
        TaskId("flights", group, partition),
        phase,
        f"host-{partition % 2}",
        42,
        lag,
        {"flights": 12},
        NOW_MS - 1_000 * (partition + 1),
        problem=problem,
        restore_s=1.0 + partition,
        records_per_s=250.0,
        retrying=" is retried: " in problem,
    )


def app(*tasks: TaskStatus, letters: tuple[GroupLetters, ...] = ()) -> AppStatus:
    rings = {each.task.group: "2.64,40" for each in tasks}
    workers = [
        WorkerStatus(
            name, f"{name}-x", 1, sum(each.worker == name for each in tasks), waiting=False, rings=rings
        )
        for name in ("host-0", "host-1")
    ]
    problems = problems_of("flights", tasks, workers, NOW_MS) + letter_problems(letters)
    return AppStatus("flights", tasks, workers, problems, letters)


def troubled() -> AppStatus:
    """Three groups of 40 tasks: failed, retrying a record, and without a worker; and dead letters."""
    failed = [
        task(
            "main",
            number,
            TaskPhase.FAILED,
            f"task flights/main/{number}: flights[{number}] offset {number}: ValueError: not a number\n  -> fix it",
        )
        for number in range(40)
    ]
    retrying = [task("audit", number, problem=RETRIED.format(number)) for number in range(40)]
    unowned = [task("join", number, TaskPhase.UNOWNED, lag=1_000_000) for number in range(40)]
    letters = GroupLetters(GroupId("flights", "main"), OpenLetters(2_118, True, 34.6, NOW_MS - 3_000))
    return app(*failed, *retrying, *unowned, letters=(letters,))


@SIZES
def test_a_healthy_app_is_one_line_for_each_group(space: Space) -> None:
    """The first question is whether all is well; the answer must not need scrolling."""
    found = app(*[task(group, number, lag=0) for group in ("audit", "main") for number in range(40)])
    lines = shown(found, space)
    assert lines[1] == "no problems"
    assert [line.split()[:3] for line in lines if line.startswith(("audit ", "main "))] == [
        ["audit", "40", "live"],
        ["main", "40", "live"],
    ]
    assert "80 of 80 tasks live, lag 0" in lines
    assert "workers: host-0 (40 tasks), host-1 (40 tasks)" in lines
    assert len(lines) == 9


def test_a_line_of_a_task_names_its_partitions() -> None:
    """If a task has one, its number is that of the task, and the column would say nothing."""
    one = [replace(task("main", number), partitions=[number]) for number in range(2)]
    assert "partitions" not in "\n".join(shown(app(*one), Space(), tasks=True))
    numbers = [[*range(1, 1000, 3)], [*range(0, 18, 3)], [8, 40], []]
    several = [replace(task("main", n), partitions=each) for n, each in enumerate(numbers)]
    lines = [
        line for line in shown(app(*several), Space(), tasks=True) if line.startswith(("task ", "main/"))
    ]
    assert [line.split("host")[0].split("  ")[1].strip() for line in lines[1:]] == [
        "1, 4, ... 997 (333)",
        "0, 3, 6, 9, 12, 15",
        "8, 40",
        "-",
    ]
    assert lines[0].split()[:2] == ["task", "partitions"]


def test_workers_without_a_task_are_named_below_the_tasks() -> None:
    """It is not a problem: the exit code stays 0."""
    lines = shown(app(task("main", 0, lag=0)), Space())
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    assert warning.startswith("warning: 1 worker has no task: 2 workers share 1 task.")
    assert lines[1] == "no problems"


@SIZES
def test_problems_of_forty_tasks_are_one_line_for_each_cause(space: Space) -> None:
    """Forty tasks with one cause are one problem, and they are named."""
    lines = shown(troubled(), space)
    problems = [line for line in lines if line.startswith("problem: ")]
    assert len(problems) == 5
    assert problems[0].startswith("problem: main/0-39: failed: flights[0] offset 0: ValueError: not a number")
    assert problems[1].startswith("problem: audit/0-39: record flights[0] offset 07 is retried: 3 attempts")
    assert problems[2].startswith("problem: join/0-39: no worker")
    assert problems[3].startswith("problem: group flights/main wrote 35 dead letters in the last minute")
    assert lines[1] == problems[0]
    phases = {
        line.split()[0]: line.split()[1:3] for line in lines if line.startswith(("audit ", "join ", "main "))
    }
    assert phases == {"audit": ["40", "live"], "join": ["40", "unowned"], "main": ["40", "failed"]}
    assert "40 of 120 tasks live, lag 40,000,560" in lines


@SIZES
def test_the_screen_is_never_taller_or_wider_than_the_terminal(space: Space) -> None:
    """What scrolled away is not read, and problems are at the top."""
    many = AppStatus(
        "flights",
        [task(f"group-{number:02}", 0) for number in range(60)],
        [WorkerStatus(f"host-{number}", "1-x", 1, 1, waiting=False) for number in range(60)],
        [Problem(f"cause {'abcdefghijklmnopqrstuvwxyz'[at]} " * 9, "next " * 40) for at in range(26)]
        + [Problem(f"{'z' * at} of another kind", "next") for at in range(26)],
    )
    assert space.width is not None
    assert space.height is not None
    for found in (many, troubled(), AppStatus("flights", [], [], many.problems)):
        for height in (2, 5, 9, space.height):
            lines = shown(found, Space(space.width, height))
            assert len(lines) <= height
            assert all(len(line) <= space.width for line in lines)
    low = shown(troubled(), Space(space.width, 12))
    assert low[1].startswith("problem: main/0-39: failed")
    assert low[3] == "... and 3 more problems: --tasks"
    lines = shown(many, space)
    assert any(line.startswith("problem: cause a") for line in lines)
    assert any(line.startswith("... and ") and "more problems: --tasks" in line for line in lines)
    assert any(line.startswith("... and ") and "more groups: --tasks" in line for line in lines)
    assert any(line.startswith("60 of 60 tasks live") for line in lines)


@SIZES
def test_numbers_of_groups_are_aligned_below_their_headings(space: Space) -> None:
    """Numbers that are not aligned cannot be compared at a glance."""
    letters = GroupLetters(GroupId("flights", "main"), OpenLetters(2_118, True, 0.0, NOW_MS - 3_000))
    found = app(
        *[task("audit", number, problem=RETRIED.format(number)) for number in range(3)],
        task("audit", 3, lag=1_000),
        task("main", 0, TaskPhase.FAILED, "broken"),
        letters=(letters,),
    )
    lines = shown(found, space)
    at = next(number for number, line in enumerate(lines) if line.startswith("group "))
    heading, audit, main = lines[at : at + 3]
    narrow = space is SMALL
    titles = (
        ("commit", "dead", "retry", "restore")
        if narrow
        else ("oldest commit", "dead letters", "retried", "slowest restore")
    )
    values = {
        "lag": ("1,021", "7"),
        "max" if narrow else "max lag": ("1,000", "7"),
        "rec/s" if narrow else "records/s": ("1,000.0", "250.0"),
        titles[0]: ("4 s ago", "1 s ago"),
        titles[1]: ("-", "2,118"),
        titles[2]: ("3", "0"),
        titles[3]: ("~4.0 s", "~1.0 s"),
    }
    for title, (first, second) in values.items():
        end = heading.index(f" {title}") + 1 + len(title)
        assert audit[:end].endswith(f" {first}"), title
        assert main[:end].endswith(f" {second}"), title


@SIZES
def test_an_app_without_tasks_is_shown(space: Space) -> None:
    """Its groups may still wait for a database."""
    problem = Problem("group flights/main has not started on a: no answer", "start the database")
    lines = shown(AppStatus("flights", [], [], [problem]), space)
    assert lines[1:] == [
        "problem: group flights/main has not started on a: no answer",
        "  -> start the database",
        "",
        "no tasks",
        "",
        "0 of 0 tasks live, lag 0",
        "workers: none",
    ]


def test_without_a_terminal_nothing_is_cut_or_wrapped() -> None:
    """Scripts search the output for workers and lag."""
    found = troubled()
    lines = shown(found, Space())
    assert f"problem: audit/0-39: {RETRIED.format(0)} (the first of 40)" in lines
    assert not any("…" in line or line.startswith("...") for line in lines)


def test_all_tasks_are_shown_with_values_below_their_headings() -> None:
    """A value below another heading is wrong information."""
    lines = shown(app(task("main", 3)), tasks=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("task "))
    heading, row = lines[at], lines[at + 1]
    places = {"task": "main/3", "worker": "host-1", "phase": "live"}
    assert {
        name: row[heading.index(name) :].startswith(value) for name, value in places.items()
    } == dict.fromkeys(places, True)
    numbers = {"lag": "7", "last entry": "4 s ago", "restore": "~4.0 s"}
    assert {
        name: row[: heading.index(name) + len(name)].endswith(f" {value}") for name, value in numbers.items()
    } == dict.fromkeys(numbers, True)
    assert len(shown(troubled(), tasks=True)) > 120


@pytest.mark.parametrize(("given", "named"), [("orders.app:app", "orders.app:app"), ("orders", "MODULE:APP")])
def test_next_steps_name_the_app_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, given: str, named: str
) -> None:
    """A step that can be copied is taken at once."""
    problem = Problem("no worker of orders is alive", "start one: pipeline worker MODULE:APP")
    found = AppStatus("orders", [], [], [problem])
    monkeypatch.setattr(cli_status, "app_named", lambda _: "orders")
    monkeypatch.setattr(cli_status, "read_status", lambda *_: found)
    broker = MemoryBroker()
    reading: Any = cli_status._Reading
    read = reading(given, MemoryCluster(broker), MemoryJournalReader(broker), 1).read()
    assert [each.hint for each in read.problems] == [f"start one: pipeline worker {named}"]


def test_open_dead_letters_are_shown_by_group_with_their_rate() -> None:
    """Whether more are written is the first question; what is not counted must not be shown as zero."""
    main = GroupLetters(GroupId("flights", "main"), OpenLetters(2_118, True, 34.6, NOW_MS - 3_000))
    audit = GroupLetters(GroupId("flights", "audit"), OpenLetters(0, False, 0.0, 0))
    lines = shown(AppStatus("flights", [], [], [], [main, audit]))
    assert "dead letters of group main: 2,118 open, 35 in the last minute, the last 3 s ago" in lines
    second = lines.index("dead letters of group audit: 0 open")
    assert "dead letters of earlier releases are counted" in lines[second + 1]


def test_a_task_that_is_silent_for_ten_seconds_has_no_throughput() -> None:
    """The rate of a commit of yesterday is not a rate of today."""
    found = app(task("main", 1, lag=0), task("main", 30, lag=0))
    row = next(line for line in shown(found, LARGE) if line.startswith("main "))
    assert " 250.0 " in row


def test_a_worker_whose_tasks_no_other_can_take_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A script of a rolling restart continues only after exit code 0."""
    found = app(task("main", 0), task("main", 1))
    print_safety(found, ["host-0"], json=False)
    assert capsys.readouterr().out == "safe to stop host-0: the other workers can take all of its tasks\n"
    with pytest.raises(typer.Exit) as ended:
        print_safety(found, ["host-0", "host-1"], json=False)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().out == (
        "not safe to stop host-0, host-1:\n"
        "  main/0-1: no worker can take them, there is no other live worker\n"
    )
    with pytest.raises(typer.BadParameter, match="c is not a live worker of flights; live workers: host-0"):
        print_safety(found, ["c"], json=False)

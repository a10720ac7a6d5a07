"""Tables on a terminal: numbers to the right, written in one way, and no name cut that tells rows apart."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from pipeline.cli.rendering import Cell, Column, print_whole, table_text

COLUMNS = (
    Column("task"),
    Column("worker", shortens=True),
    Column("lag", number=True),
    Column("state"),
)
ROWS: list[list[Cell]] = [
    ["main/0", "worker-1", 12_345, "ok"],
    ["other-things/11", None, 7, "damaged"],
]


def shown(rows: list[list[Cell]], width: int | None = None) -> list[str]:
    return table_text(COLUMNS, rows, width).plain.splitlines()


def test_numbers_stand_to_the_right_with_separators() -> None:
    """Numbers of different length are compared at a glance."""
    assert shown(ROWS) == [
        "task             worker       lag  state",
        "main/0           worker-1  12,345  ok",
        "other-things/11  -              7  damaged",
    ]


def test_on_a_narrow_terminal_only_what_may_be_shortened_is() -> None:
    """Tasks whose names are cut cannot be told apart, and cannot be typed."""
    long: list[list[Cell]] = [
        ["other-things/11", f"a-machine-{number}.of-a-long-domain.example-1", 1, "ok"] for number in (1, 2)
    ]
    lines = shown(long, width=50)
    assert max(map(len, lines)) == 50
    assert all(line.startswith("other-things/11  a-machine-") for line in lines[1:])
    assert all(line.endswith("example-1    1  ok") for line in lines[1:])
    assert all("…" in line for line in lines[1:])


def test_a_table_that_cannot_be_narrow_runs_over() -> None:
    """The terminal wraps such a line, and copies it whole."""
    lines = shown([["a-task-with-a-long-name/1", "a-long-worker-name", 1, "ok"]], width=20)
    assert lines[1] == "a-task-with-a-long-name/1  a-lon…r-name    1  ok"
    out = StringIO()
    print_whole(Console(file=out, width=20), COLUMNS, ROWS)
    assert out.getvalue().splitlines() == shown(ROWS)


def test_without_a_terminal_nothing_is_cut() -> None:
    """A reader of a file or a pipe cannot see the truncated text elsewhere."""
    name = "w" * 300
    assert name in shown([["main/0", name, 0, "ok"]])[1]


def test_wide_characters_take_their_place() -> None:
    """A key may be in any script."""
    assert shown([["主題/0", "w", 1, "ok"]])[1] == "主題/0  w         1  ok"


def test_lines_end_with_what_is_in_them() -> None:
    """Spaces at the end are in every copy."""
    assert all(line == line.rstrip() for line in shown([["a", "b", 1, "ok"], ["a", "b", 1, "longer"]]))

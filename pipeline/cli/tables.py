"""Tables for terminals: plain columns, numbers right-aligned with separators. Text that identifies a row is not cut.

A table is as wide as its content. If the terminal is narrower, columns that may be shortened lose their middle. If
that is not enough, lines wrap, as in the output of any other command.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from pipeline.cli.options import table_console

__all__ = ["Cell", "Column", "print_table", "print_whole", "table_text"]

Cell = str | int | Text | None
_GAP = "  "
_SHORTEST = 12
_CUT = "…"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and what is below it. `number`: to the right. `shortens`: may lose its middle."""

    title: str
    number: bool = False
    shortens: bool = False


def table_text(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], width: int | None = None) -> Text:
    """The table without an end of line behind its last row. `width`: of the terminal; None: there is none."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max([cell_len(column.title), *(cell_len(row[at].plain) for row in cells)])
        for at, column in enumerate(columns)
    ]
    if width is not None:
        _shorten(columns, widths, sum(widths) + len(_GAP) * (len(columns) - 1) - width)
    headings = [Text(column.title, style="bold") for column in columns]
    lines = [_line(columns, widths, row) for row in (headings, *cells)]
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    if cell is None:
        return Text("-")
    return Text(f"{cell:,}" if isinstance(cell, int) else cell)


def _shorten(columns: Sequence[Column], widths: list[int], excess: int) -> None:
    """Take what is too much from the columns that may be shortened, always from the widest of them."""
    places = [at for at, column in enumerate(columns) if column.shortens and widths[at] > _SHORTEST]
    while excess > 0 and places:
        widest = max(places, key=lambda at: widths[at])
        widths[widest] -= 1
        excess -= 1
        places = [at for at in places if widths[at] > _SHORTEST]


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[Text]) -> Text:
    line = Text()
    for at, (column, width, cell) in enumerate(zip(columns, widths, row, strict=True)):
        shown = _cut(cell, width)
        space = " " * (width - cell_len(shown.plain))
        line.append_text(Text(_GAP if at else ""))
        line.append_text(Text(space) + shown if column.number else shown)
        if not column.number and at < len(columns) - 1:
            line.append(space)
    return line


def _cut(cell: Text, width: int) -> Text:
    """The cell, or its two ends around an ellipsis: names of a fleet often differ in the end alone."""
    if cell_len(cell.plain) <= width:
        return cell
    left = (width - 1) // 2
    right = width - 1 - left
    plain = cell.plain
    return Text(f"{plain[:left]}{_CUT}{plain[len(plain) - right :]}", style=cell.style)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """The table on standard output."""
    print_whole(table_console(), columns, rows)


def print_whole(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """The same on another console. A line that is too long for a terminal is wrapped by it, and copied whole."""
    shown = table_text(columns, rows, console.width if console.is_terminal else None)
    console.print(Group(shown), crop=False)  # a text by itself loses what says that it is not wrapped

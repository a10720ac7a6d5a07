"""Tables as plain text: numbers are right-aligned with separators. Text that identifies a row is not shortened.

A table is as wide as its content. If the terminal is narrower, the middle of long cells is replaced by an ellipsis in
the columns that allow this. If that is not enough, lines wrap.
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
    """A column.

    Args:
        title: The heading.
        number: Whether the cells are right-aligned.
        shortens: Whether the middle of a cell may be replaced by an ellipsis.
    """

    title: str
    number: bool = False
    shortens: bool = False


def table_text(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], width: int | None = None) -> Text:
    """The table, without a newline after its last row. `width` is that of the terminal; None without a terminal."""
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
    """Reduce the widths by `excess` in total, always in the widest column that may be shortened."""
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
    """The cell, or its two ends around an ellipsis: names of workers often differ only at the end."""
    if cell_len(cell.plain) <= width:
        return cell
    left = (width - 1) // 2
    right = width - 1 - left
    plain = cell.plain
    return Text(f"{plain[:left]}{_CUT}{plain[len(plain) - right :]}", style=cell.style)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print the table on standard output."""
    print_whole(table_console(), columns, rows)


def print_whole(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print the table on a console. The terminal wraps lines that are too long, so they can be copied."""
    shown = table_text(columns, rows, console.width if console.is_terminal else None)
    console.print(Group(shown), crop=False)  # without the group, rich would wrap the text

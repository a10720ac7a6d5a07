"""How commands print: tables as plain text, keys and values as JSON fields, and hex dumps.

A table is as wide as its content. Numbers are right-aligned with separators. Text that identifies a row is not
shortened. If the terminal is narrower, the middle of long cells is replaced by an ellipsis in the columns that allow
this. If that is not enough, lines wrap.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from pipeline.cli.options import table_console

__all__ = [
    "Cell",
    "Column",
    "hex_lines",
    "json_field",
    "print_table",
    "print_whole",
    "table_text",
    "text_field",
]

_HEX_BYTES = 16

Cell = str | int | Text | None
_GAP = "  "
_SHORTEST = 12
_CUT = "…"


def json_field(name: str, data: bytes | None) -> dict[str, object]:
    """A JSON field with the data: JSON unchanged, otherwise text, otherwise base64 as `NAME_base64`."""
    if data is not None:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            msgspec.json.decode(data)
            return {name: msgspec.Raw(data)}
    return text_field(name, data)


def text_field(name: str, data: bytes | None) -> dict[str, object]:
    """A JSON field with the data: text, otherwise base64 as `NAME_base64`. None for a null."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def hex_lines(data: bytes) -> Iterator[str]:
    """Lines of a hex dump, as `00000010  7b 22 61 22  {"a"`, with sixteen bytes per line."""
    for start in range(0, len(data), _HEX_BYTES):
        part = data[start : start + _HEX_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{start:08x}  {part.hex(' '):<{_HEX_BYTES * 3 - 1}}  {text}"


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

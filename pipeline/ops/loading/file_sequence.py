"""Reads the files of one load as one sequence. A batch may start in one file and end in another.

Owns how far the load has come (`SequencePosition`). Before a load continues, it checks that the finished files, and the
beginning of the current one, have not changed. A file is finished when the next one has been opened. So the last file
of the list is never finished, and may grow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import InputError, InvariantError
from pipeline.ops.loading.decisions import SequencePosition, check_prefix, refused
from pipeline.ops.loading.files import InputFile
from pipeline.ops.loading.finished_files import NO_FINISHED_FILES, altered, misplaced
from pipeline.ops.loading.formats.compression import STANDARD_INPUT, Opened, logical_name, open_file
from pipeline.ops.loading.formats.lines import ReadPosition
from pipeline.ops.loading.formats.readers import FORMATS, Reading, open_cursor, open_rows
from pipeline.ops.loading.formats.rows import FileRows
from pipeline.ops.loading.positions import LoadPosition
from pipeline.ports import Output

__all__ = ["FileSequence", "Stretch"]

Open = Callable[[str, bool], Opened]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records of some rows, up to `end`.

    `skipped`: rows without a key. `finished`: all files are read. `error`: why the next row cannot be loaded.
    """

    outputs: Sequence[Output]
    skipped: int
    end: SequencePosition
    finished: bool
    error: InputError | None


class FileSequence:
    """Reads files one after the other, from a position on. Use an object once."""

    def __init__(
        self,
        files: Sequence[InputFile],
        reading: Reading,
        opener: Open = lambda path, unpack: open_file(path, unpack=unpack),
    ) -> None:
        self._files = files
        self._reading = reading
        self._format = FORMATS[reading.options.format]
        self._opener = opener
        self._index = 0
        self._finished_files = NO_FINISHED_FILES
        self._opened: Opened | None = None
        self._rows: FileRows | None = None
        self._ended = False  # whether the last row of the open file was read
        self._columns: frozenset[str] | None = None  # of the first file; all others must have the same
        self._decided: tuple[str, ...] | None = None  # the text columns, from earlier files or runs
        self._done_bytes = 0
        self.on_check: Callable[[int, int], None] = lambda _number, _count: None

    def begin(self, position: LoadPosition | None) -> bool:
        """Move to `position`; return whether all rows are loaded. Calls `on_check` after each finished file.

        Raises InputError if a file cannot be read, or if the files differ from those of the position.
        """
        if position is None:
            self._open_rows(0)
            return False
        self._check_finished(position)
        self._decided = position.text_columns
        self._open_rows(position.finished_files.count)
        cursor = self._current().cursor
        check_prefix(position, cursor.skip_to(position.offset, position.line))
        at_end = cursor.at_end()
        if not at_end and not cursor.ends_line:
            raise refused(
                position.name,
                f"line {position.line:,} of {cursor.name} was loaded without a line end, and the file has grown since",
                "give another --name, or --restart",
            )
        return position.finished and at_end and self._is_last()

    def check_columns(self) -> None:
        """Raise InputError if the first file does not have a column that an option names. Skips standard input."""
        if self._files[0].path != STANDARD_INPUT:
            self._open_rows(0)

    def read(self, now_ms: int) -> Stretch:
        """The next records. `now_ms`: the timestamp of records whose rows have none."""
        limits = self._reading.limits
        outputs: list[Output] = []
        size = skipped = 0
        error: InputError | None = None
        while error is None and len(outputs) + skipped < limits.batch_rows and size < limits.batch_bytes:
            if self._ended:
                if self._is_last():
                    break
                try:
                    self._open_next()
                except InputError as wrong:
                    error = wrong
                    break
            room = limits.batch_rows - len(outputs) - skipped
            batch = self._current().read(now_ms, room, limits.batch_bytes - size)
            outputs += batch.outputs
            size += batch.size
            skipped += batch.skipped
            error, self._ended = batch.error, batch.finished
        finished = error is None and self._ended and self._is_last()
        return Stretch(outputs, skipped, self._position(), finished, error)

    def consumed(self) -> int:
        """How many bytes of the files on disk have been read or checked."""
        if self._opened is None or self._rows is None:
            return self._done_bytes
        share, size = self._rows.cursor.share(), self._files[self._index].size or 0
        return self._done_bytes + (self._opened.consumed() if share is None else int(share * size))

    def close(self) -> None:
        """Close the current file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _position(self) -> SequencePosition:
        return SequencePosition(
            self._files[self._index].shown,
            self._current().cursor.mark(),
            self._finished_files,
            self._text_columns(),
        )

    def _text_columns(self) -> tuple[str, ...] | None:
        return self._decided if self._rows is None else self._rows.text_columns

    def _current(self) -> FileRows:
        if self._rows is None:
            raise InvariantError("a load was read before `begin`")
        return self._rows

    def _is_last(self) -> bool:
        return self._index == len(self._files) - 1

    def _open_next(self) -> None:
        """Open the next file. Only then does the current one count as finished."""
        if self._opened is not None:
            self._opened.check_unchanged()
        finished_files = self._finished_files.after(
            self._files[self._index].name, self._current().cursor.mark()
        )
        left, size = self._opened, self._files[self._index].size or 0
        self._open_rows(self._index + 1)
        self._finished_files = finished_files
        self._done_bytes += size
        self._ended = False
        if left is not None:
            left.close()

    def _open_rows(self, index: int) -> None:
        file = self._files[index]
        opened = self._open(file)
        try:
            reading = replace(self._reading, first_file=index == 0)
            rows = open_rows(opened, reading, self._text_columns())
            self._check_columns(file, rows.columns)
        except BaseException:
            opened.close()
            raise
        self._index, self._opened, self._rows = index, opened, rows

    def _check_columns(self, file: InputFile, columns: tuple[str, ...] | None) -> None:
        """Raise InputError unless all files have the same columns, in any order."""
        if columns is None:
            return
        here = frozenset(columns)
        if self._columns is None:
            self._columns = here
        missing, new = sorted(self._columns - here), sorted(here - self._columns)
        if missing or new:
            what = [f"lacks {', '.join(map(repr, missing))}"] if missing else []
            what += [f"has also {', '.join(map(repr, new))}"] if new else []
            raise InputError(
                f"the columns of {file.shown} are not those of {self._files[0].shown}: it {' and '.join(what)}",
                hint="load files with other columns under another --name",
            )

    def _check_finished(self, position: LoadPosition) -> None:
        """Raise InputError if the finished files differ from those that were loaded."""
        finished_files, names = position.finished_files, [file.name for file in self._files]
        shown = [file.shown for file in self._files]
        if not finished_files.count and len(names) == 1:
            return
        moved = misplaced(finished_files, logical_name(position.file), names)
        if moved:
            raise refused(position.name, moved)
        for number, file in enumerate(self._files[: finished_files.count], 1):
            self._finished_files = self._finished_files.after(file.name, self._end_of(file))
            self._done_bytes += file.size or 0
            other = altered(finished_files, self._finished_files, shown, f"{self._format.offset_unit}s")
            if other:
                raise refused(position.name, other)
            self.on_check(number, finished_files.count)
        if finished_files.count and self._format.same_columns:
            self._check_columns(self._files[0], self._columns_of(self._files[0]))

    def _end_of(self, file: InputFile) -> ReadPosition:
        """The position after the last row of a finished file."""
        opened = self._open(file)
        try:
            return open_cursor(opened, self._reading.options.format).skip_to_end()
        finally:
            opened.close()

    def _columns_of(self, file: InputFile) -> tuple[str, ...] | None:
        opened = self._open(file)
        try:
            return open_rows(opened, self._reading, ()).columns
        finally:
            opened.close()

    def _open(self, file: InputFile) -> Opened:
        return self._opener(file.path, not self._format.seeks)

"""Rows of CSV files. Each row becomes a JSON object with all columns."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any

import msgspec

from pipeline.core.names import EVENT_ID_HEADER
from pipeline.core.suggestions import counted, did_you_mean
from pipeline.errors import InputError
from pipeline.ops.loading.formats.cells import Numbers, Timestamps, text_columns
from pipeline.ops.loading.formats.lines import Lines
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowLimits, row_type
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["CsvRows"]

_SAMPLE_BYTES = 256 * 1024
_MAX_CELL_CHARS = 16 * 1024 * 1024


class CsvRows(FileRows):
    """Rows of a CSV file: commas, double quotes, a header line. The constructor reads the header and a sample."""

    def __init__(
        self,
        lines: Lines,
        topic: str,
        options: LoadOptions,
        missing_key: MissingKey,
        limits: RowLimits,
        decided: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
        self._lines = lines
        csv.field_size_limit(_MAX_CELL_CHARS)
        sample = lines.peek(_SAMPLE_BYTES)
        self._reader = csv.reader(map(bytes.decode, lines), strict=True)
        self.columns = self._names = self._header()
        self.text_columns = decided if decided is not None else self._sampled(sample)
        for name in (options.key, options.id, options.timestamp, *options.text, *(self.text_columns or ())):
            if name is not None and name not in self._names:
                raise InputError(
                    f"{lines.name} has no column {name!r}{did_you_mean(name, self._names)}",
                    hint=f"its columns: {', '.join(self._names)}",
                )

    def _header(self) -> tuple[str, ...]:
        lines = self._lines
        try:
            names = next((row for row in self._reader if row), None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{lines.name}: the header line cannot be read: {error}",
                hint="a CSV file is UTF-8 text, and its first line names the columns",
            ) from error
        if names is None:
            raise InputError(f"{lines.name} is empty: the first line of a CSV file must name the columns")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{lines.name}: the header names the column {twice[0]!r} more than once")
        lines.take(len(lines.pending))
        return tuple(names)

    def _sampled(self, sample: list[bytes]) -> tuple[str, ...] | None:
        """The columns that are text; None if the file has no row, so that the next file decides."""
        rows: list[list[str]] = []
        # A truncated or invalid row is reported when it is read again.
        with suppress(csv.Error, UnicodeDecodeError):
            rows.extend(csv.reader(map(bytes.decode, sample), strict=True))
        below = [row for row in rows if row][1:]
        if not below and sum(map(len, sample)) < _SAMPLE_BYTES:
            return None
        found = {self._names[index] for index in text_columns(below, len(self._names), self._options.null)}
        return tuple(name for name in self._names if name in found.union(self._options.text))

    def _records(self) -> Iterator[Output | None]:
        names, topic, options = self._names, self._topic, self._options
        width = len(names)
        nulls = frozenset(options.null)
        missing = nulls | {""}
        text = [index for index, name in enumerate(names) if name in (self.text_columns or ())]
        numeric = [index for index in range(width) if index not in text]
        order = numeric + text
        numbers_of, texts_of = _picker(numeric), _picker(text)
        in_file_order = _picker([order.index(index) for index in range(width)])
        number: Callable[[str], Any] = Numbers(options.null).__getitem__
        value_of, encode = row_type(names), msgspec.json.Encoder().encode
        key_of, id_of, time_of = (self._cell(name) for name in (options.key, options.id, options.timestamp))
        time_ms = Timestamps()
        headers: Sequence[tuple[str, bytes]] = ()
        make = Output._make
        for row in self._decided_rows():
            if len(row) != width:
                if not row:
                    yield None
                    continue
                raise InputError(f"the row has {counted(len(row), 'column')}, but the header has {width}")
            key = None
            if key_of is not None:
                cell = key_of(row)
                if cell not in missing:
                    key = cell.encode()
                else:
                    key = self._no_key()
                    if self._missing_key == "skip":
                        self._skipped += 1
                        yield None
                        continue
            if id_of is not None:
                cell = id_of(row)
                if cell in missing:
                    raise InputError(f"field {options.id!r}, the event id, is missing or empty")
                headers = ((EVENT_ID_HEADER, cell.encode()),)
            timestamp = self._now_ms if time_of is None else time_ms[time_of(row)]
            if nulls:
                for index in text:
                    if row[index] in nulls:
                        row[index] = None
            value = value_of(*in_file_order((*map(number, numbers_of(row)), *texts_of(row))))
            yield make((topic, key, encode(value), timestamp, headers))

    def _decided_rows(self) -> Iterator[list[Any]]:
        """The rows. If the text columns are not decided, the first row decides that there are none."""
        for row in self._reader:
            if row:
                self.text_columns = self.text_columns or ()
                yield row
                break
            yield row
        yield from self._reader

    def _cell(self, name: str | None) -> Callable[[Sequence[str]], str] | None:
        return None if name is None else itemgetter(self._names.index(name))


def _picker(indexes: Sequence[int]) -> Callable[[Sequence[str]], Sequence[str]]:
    if len(indexes) == 1:
        only = indexes[0]
        return lambda row: (row[only],)
    return itemgetter(*indexes) if indexes else lambda _: ()

"""The input formats of a load: `FORMATS` has one `InputFormat` for each.

To add a format, write a subclass of `FileRows`, add a row to `FORMATS`, and add the name to `Format` in
`ops/loading/positions.py`, because each stored position names its format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.errors import ConfigError
from pipeline.installation import install_hint
from pipeline.ops.loading.formats.compression import Opened, uncompressed_suffix
from pipeline.ops.loading.formats.csv_rows import CsvRows
from pipeline.ops.loading.formats.json_rows import JsonRows
from pipeline.ops.loading.formats.lines import Lines
from pipeline.ops.loading.formats.rows import Cursor, FileRows, MissingKey, RowLimits
from pipeline.ops.loading.positions import Format, LoadOptions

if TYPE_CHECKING:
    from pipeline.ops.loading.formats.parquet import ParquetFile, ParquetRows

__all__ = ["FORMATS", "InputFormat", "Reading", "file_format", "open_cursor", "open_rows"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become records.

    `missing_key`: what happens to rows without a key. `first_file`: whether they are those of the first file of a load.
    """

    topic: str
    options: LoadOptions
    missing_key: MissingKey
    limits: RowLimits
    first_file: bool = True


@dataclass(frozen=True, slots=True)
class InputFormat:
    """One format.

    Attributes:
        suffixes: The suffixes of its files, without that of a compression.
        rows: Opens the reader of the rows. The last argument: the text columns of a load that continues.
        cursor: Opens only the position in a file, without converting rows.
        unit: What the `line` of a position counts.
        offset_unit: What the `offset` of a position counts.
        same_columns: Whether all files of a load must have the same columns.
        seeks: Whether the reader seeks in the file. Such a file cannot come from a pipe and is not decompressed. The
            hash in its positions covers the whole file; of other files, the bytes before the offset.
    """

    suffixes: tuple[str, ...]
    rows: Callable[[Opened, Reading, tuple[str, ...] | None], FileRows]
    cursor: Callable[[Opened], Cursor]
    unit: Literal["line", "row"] = "line"
    offset_unit: Literal["byte", "row"] = "byte"
    same_columns: bool = True
    seeks: bool = False


def file_format(file: str) -> Format | None:
    """The format, from the name of the file or of the one in it; None if the name does not show it.

    Raises InputError for an archive with several files.
    """
    suffix = uncompressed_suffix(file)
    return next((name for name, form in FORMATS.items() if suffix in form.suffixes), None)


def open_rows(opened: Opened, reading: Reading, decided: tuple[str, ...] | None) -> FileRows:
    """The reader of the rows of a file. `decided`: the text columns of a load that continues.

    Raises InputError if the file does not have the format, and ConfigError if an extra is not installed.
    """
    return FORMATS[reading.options.format].rows(opened, reading, decided)


def open_cursor(opened: Opened, form: Format) -> Cursor:
    """The position in a file, to skip rows without converting them. Raises as `open_rows`."""
    return FORMATS[form].cursor(opened)


def _lines(opened: Opened) -> Lines:
    return Lines(opened.stream, opened.name)


def _csv(opened: Opened, reading: Reading, decided: tuple[str, ...] | None) -> FileRows:
    return CsvRows(
        _lines(opened), reading.topic, reading.options, reading.missing_key, reading.limits, decided
    )


def _json_lines(opened: Opened, reading: Reading, _decided: tuple[str, ...] | None) -> FileRows:
    return JsonRows(
        _lines(opened),
        reading.topic,
        reading.options,
        reading.missing_key,
        reading.limits,
        first_file=reading.first_file,
    )


def _parquet(opened: Opened, reading: Reading, _decided: tuple[str, ...] | None) -> FileRows:
    rows, _ = _parquet_readers()
    return rows(
        opened.stream, opened.name, reading.topic, reading.options, reading.missing_key, reading.limits
    )


def _parquet_cursor(opened: Opened) -> Cursor:
    _, file = _parquet_readers()
    return file(opened.stream, opened.name)


def _parquet_readers() -> tuple[type[ParquetRows], type[ParquetFile]]:
    try:
        from pipeline.ops.loading.formats.parquet import (  # noqa: PLC0415 - needs an extra
            ParquetFile,
            ParquetRows,
        )
    except ImportError as error:
        raise ConfigError(
            "reading Parquet needs the extra `parquet`", hint=install_hint("parquet")
        ) from error
    return ParquetRows, ParquetFile


FORMATS: Mapping[Format, InputFormat] = {
    "csv": InputFormat((".csv",), _csv, _lines),
    "jsonl": InputFormat((".jsonl", ".ndjson", ".json"), _json_lines, _lines, same_columns=False),
    "parquet": InputFormat(
        (".parquet", ".pq"), _parquet, _parquet_cursor, unit="row", offset_unit="row", seeks=True
    ),
}

"""Reads Parquet files: rows as JSON objects. Uses pyarrow, which the extra `parquet` installs.

The position of a row is its number. A hash over all bytes, computed when the file is opened, identifies the file: a
Parquet file cannot grow, and its footer does not change with every change of a page.

Rows are read as a stream, in batches of about as many bytes as a transaction, so memory does not depend on the size of
a row group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
from pyarrow import parquet

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError, InvariantError
from pipeline.ops.loading.formats.lines import ReadPosition, new_hash
from pipeline.ops.loading.formats.parquet_values import json_values
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowLimits, row_type
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["ParquetFile", "ParquetRows"]

_BLOCK_BYTES = 1024 * 1024
_BUFFER_BYTES = 64 * 1024  # for each column
_BATCH_ROWS = 10_000
_BATCH_BYTES = 8 * 1024 * 1024


class ParquetFile:
    """The rows of one file, counted as they are taken (`pipeline.ops.loading.formats.rows.Cursor`)."""

    ends_line = True

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Raises InputError if it is not a Parquet file, or if a column has a type without a JSON form."""
        self.name = name
        self.pending: list[None] = []
        self._taken = self._first = 0
        try:
            digest = new_hash()
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
            self._digest = digest.hexdigest()
            # Without both options, pyarrow reads whole row groups into memory, however few rows are requested.
            self._file = parquet.ParquetFile(
                stream, page_checksum_verification=True, pre_buffer=False, buffer_size=_BUFFER_BYTES
            )
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{name} cannot be read as Parquet: {error}") from error
        schema = self._file.schema_arrow
        self.columns = tuple(schema.names)
        if not self.columns:
            raise InputError(f"{name} has no column")
        for field in schema:
            if self.columns.count(field.name) > 1:
                raise InputError(f"{name} has more than one column {field.name!r}")
            try:
                json_values(pa.nulls(0, field.type))
            except (InputError, pa.ArrowException) as error:
                raise InputError(
                    f"{name}: column {field.name!r} has the type {field.type}, which cannot be converted to JSON",
                    hint="write the file without this column, or with the column as text",
                ) from error

    @property
    def line(self) -> int:
        """The number of rows taken."""
        return self._taken

    def take(self, count: int) -> ReadPosition:
        """Count the first `count` pending rows, and return the position after them."""
        del self.pending[:count]
        self._taken += count
        return self.mark()

    def mark(self) -> ReadPosition:
        """The position after the last row taken."""
        return ReadPosition(self._taken, self._taken, self._digest)

    def skip_to(self, offset: int, line: int) -> ReadPosition:
        """Take the first `line` rows, or as many as there are. Call it before reading any."""
        if self.pending or self._taken or offset != line:
            raise InvariantError(f"{self.name}: rows were read before {line} of them were skipped")
        self._taken = self._first = min(line, self._rows())
        return self.mark()

    def skip_to_end(self) -> ReadPosition:
        """Take all rows."""
        return self.skip_to(self._rows(), self._rows())

    def at_end(self) -> bool:
        """Whether all rows are taken."""
        return self._taken == self._rows()

    def share(self) -> float | None:
        """The share of the rows that are taken. (The read position of the file shows nothing, because of the hash.)"""
        return self._taken / max(1, self._rows())

    def columns_of_values(self) -> Iterator[list[list[Any]]]:
        """The remaining rows in batches: a list of values for each column. The caller adds the rows to `pending`.

        Raises InputError for a damaged file.
        """
        skip = self._first
        try:
            for group in range(self._file.num_row_groups):
                facts = self._file.metadata.row_group(group)
                if skip >= facts.num_rows:
                    skip -= facts.num_rows
                    continue
                size = _BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size)
                rows = max(1, min(_BATCH_ROWS, size))
                for batch in self._file.iter_batches(rows, row_groups=[group]):
                    if skip >= len(batch):
                        skip -= len(batch)
                        continue
                    yield [json_values(column) for column in batch.slice(skip).columns]
                    skip = 0
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"the rest of the file cannot be read: {error}") from error

    def _rows(self) -> int:
        return cast("int", self._file.metadata.num_rows)


class ParquetRows(FileRows):
    """Rows of one Parquet file. The constructor hashes the file and reads its footer."""

    unit = "row"
    repair = (
        "change the options or the topic, or load a corrected file under another --name: a Parquet file cannot change "
        "during a load. To not send the loaded rows again, leave them out of the corrected file, or give --id and "
        "declare the topic with dedup"
    )

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        topic: str,
        options: LoadOptions,
        missing_key: MissingKey,
        limits: RowLimits,
    ) -> None:
        if options.null or options.text:
            raise InputError(
                "--null and --text are for CSV only: Parquet has its own null and text", hint="leave them out"
            )
        self._file = ParquetFile(stream, name)
        super().__init__(self._file, topic, options, missing_key, limits)
        self.columns = self._file.columns
        for column in (options.key, options.id, options.timestamp):
            if column is not None and column not in self.columns:
                raise InputError(
                    f"{name} has no column {column!r}{did_you_mean(column, self.columns)}",
                    hint=f"its columns: {', '.join(self.columns)}",
                )

    def _records(self) -> Iterator[Output | None]:
        options, topic, pending = self._options, self._topic, self._file.pending
        key, event_id, timestamp = (
            self._index(name) for name in (options.key, options.id, options.timestamp)
        )
        make, encode = Output._make, msgspec.json.Encoder().encode
        value_of = row_type(self.columns or ())
        for columns in self._file.columns_of_values():
            for row in zip(*columns, strict=True):
                pending.append(None)
                head = self._head(row[key], row[event_id], row[timestamp])
                if head is None:
                    yield None
                    continue
                record_key, headers, moment_ms = head
                yield make((topic, record_key, encode(value_of(*row)), moment_ms, headers))

    def _index(self, name: str | None) -> int:
        """The index of a column. Without a name any index will do: the value is not used."""
        return 0 if name is None or self.columns is None else self.columns.index(name)

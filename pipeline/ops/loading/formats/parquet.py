"""Parquet files: rows as JSON objects. The one module that knows pyarrow, which the extra `parquet` brings.

A row's place is its number, and what identifies the file is a hash over all of its bytes, made when it is opened: a
Parquet file is read from its end, cannot grow, and a footer alone does not tell each change of a page. Rows are
read as a stream, in batches of about as many bytes as a transaction has: memory does not follow a row group's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
from pyarrow import parquet

from pipeline.errors import InputError, InvariantError
from pipeline.ops.loading.formats.lines import ReadPosition, new_hash
from pipeline.ops.loading.formats.parquet_values import json_values

__all__ = ["ParquetFile"]

_BLOCK_BYTES = 1024 * 1024
_BUFFER_BYTES = 64 * 1024  # of each column
_BATCH_ROWS = 10_000
_BATCH_BYTES = 8 * 1024 * 1024


class ParquetFile:
    """The rows of one file, counted as they are taken (`pipeline.ops.loading.formats.rows.Cursor`)."""

    ends_line = True

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Raises InputError for what is no Parquet file, and for columns that no JSON value can stand for."""
        self.name = name
        self.pending: list[None] = []
        self._taken = self._first = 0
        try:
            digest = new_hash()
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
            self._digest = digest.hexdigest()
            # Without both of these a whole row group is held in memory, however few of its rows are asked for.
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
                    f"{name}: column {field.name!r} has the type {field.type}, which no JSON value can stand for",
                    hint="write the file without it, or as text",
                ) from error

    @property
    def line(self) -> int:
        """Rows taken so far."""
        return self._taken

    def take(self, count: int) -> ReadPosition:
        """Count the first `count` pending rows; the position after them."""
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
        """Of the rows, how many are taken. (Where the file is read is no measure: all of it was hashed before.)"""
        return self._taken / max(1, self._rows())

    def columns_of_values(self) -> Iterator[list[list[Any]]]:
        """The remaining rows, some at a time: a list for each column. The caller adds the rows to `pending`.

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
            raise InputError(f"the file cannot be read any further: {error}") from error

    def _rows(self) -> int:
        return cast("int", self._file.metadata.num_rows)

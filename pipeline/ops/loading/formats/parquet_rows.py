"""Rows of Parquet files. Each row becomes a JSON object with all columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError
from pipeline.ops.loading.formats.parquet import ParquetFile
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowLimits, row_type
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["ParquetRows"]


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

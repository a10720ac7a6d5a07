"""Rows of Parquet files: every column of a row in a JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from pipeline.client.cells import Timestamps, timestamp_ms
from pipeline.client.parquet import ParquetFile
from pipeline.client.positions import LoadOptions
from pipeline.client.rows import FileRows, MissingKey, RowLimits, row_type, text_of
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.errors import InputError
from pipeline.ports import Output

__all__ = ["ParquetRows"]


class ParquetRows(FileRows):
    """Rows of one Parquet file. Hashes the file and reads its footer when built."""

    unit = "row"
    mending = "the file as a whole is remembered: change options or the topic, or load a mended file by another --name"

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
                "--null and --text are for CSV: Parquet says itself what is null and what is text"
            )
        self._file = ParquetFile(stream, name)
        super().__init__(self._file, topic, options, missing_key, limits)
        self.columns = self._file.columns
        for column in (options.key, options.id, options.timestamp):
            if column is not None and column not in self.columns:
                raise InputError(
                    f"{name} has no column {column!r}", hint=f"its columns: {', '.join(self.columns)}"
                )

    def _records(self) -> Iterator[Output | None]:
        options, topic, pending = self._options, self._topic, self._file.pending
        key_at, id_at, time_at = (self._index(name) for name in (options.key, options.id, options.timestamp))
        make, encode = Output._make, msgspec.json.Encoder().encode
        value_of, time_ms = row_type(self.columns or ()), Timestamps()
        headers: Sequence[tuple[str, bytes]] = ()
        for columns in self._file.columns_of_values():
            for row in zip(*columns, strict=True):
                pending.append(None)
                key = None
                if key_at is not None:
                    key = text_of(row[key_at], options.key or "", "the key") or self._no_key()
                    if key is None and self._missing_key == "skip":
                        self._skipped += 1
                        yield None
                        continue
                if id_at is not None:
                    event_id = text_of(row[id_at], options.id or "", "the event id")
                    if event_id is None:
                        raise InputError(f"no {options.id!r} for the event id")
                    headers = ((EVENT_ID_HEADER, event_id),)
                timestamp = self._now_ms
                if time_at is not None:
                    time = row[time_at]
                    if time is None:
                        raise InputError(f"no {options.timestamp!r} for the timestamp")
                    timestamp = time_ms[time] if isinstance(time, str) else timestamp_ms(time)
                yield make((topic, key, encode(value_of(*row)), timestamp, headers))

    def _index(self, name: str | None) -> int | None:
        return None if name is None or self.columns is None else self.columns.index(name)

"""Rows of JSON lines. The value of a record has the bytes of the line, without surrounding white space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from pipeline.core.suggestions import counted, did_you_mean
from pipeline.errors import InputError
from pipeline.ops.loading.formats.lines import Lines
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowBatch, RowLimits
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["JsonRows"]

_ENOUGH_ROWS = 100  # to conclude that a field which none of them has is misspelled
_OTHER_KEYS = (
    "To accept rows without a key, give --on-missing-key null, or --on-missing-key skip to leave them out"
)


class JsonRows(FileRows):
    """Rows of a file in which each line is a JSON object."""

    def __init__(
        self,
        lines: Lines,
        topic: str,
        options: LoadOptions,
        missing_key: MissingKey,
        limits: RowLimits,
        *,
        first_file: bool = True,
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
        self._lines = lines
        self._first_file = first_file
        self._keyless: Mapping[str, object] | None = (
            None  # the first row, until a row has the field of the key
        )
        if options.null or options.text:
            raise InputError(
                "--null and --text are for CSV only: JSON has its own null and text", hint="leave them out"
            )

    def read(self, now_ms: int, rows: int | None = None, size_limit: int | None = None) -> RowBatch:
        """The next batch. The first one is refused if none of its rows has the field of the key: probably a typo.

        With `--on-missing-key null` or `skip` a row may lack the key, but hardly all of them. A few rows prove it only
        if they are the whole file, or have a field with a similar name.
        """
        batch = super().read(now_ms, rows, size_limit)
        keyless, self._keyless = self._keyless, None
        if keyless is None:
            return batch
        name = self._options.key or ""
        count, meant = len(batch.outputs) + batch.skipped, did_you_mean(name, keyless)
        if count < _ENOUGH_ROWS and not batch.finished and not meant:
            return batch
        which = (
            f"none of the first {counted(count, 'row')} has" if count > 1 else "the first row does not have"
        )
        error = InputError(
            f"{self.cursor.name}: {which} the field {name!r}, the key{meant}",
            hint=f"the fields of the first row: {', '.join(keyless) or 'none'}. If no row has a key, leave out --key",
        )
        return replace(batch, outputs=(), size=0, skipped=0, finished=False, error=error)

    def _records(self) -> Iterator[Output | None]:
        topic, make, options = self._topic, Output._make, self._options
        key, event_id, timestamp = (name or "" for name in (options.key, options.id, options.timestamp))
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        first = self._lines.line == 0  # a load that continues has read rows with these fields
        for line in self._lines:
            data = line.strip()
            if not data:
                yield None
                continue
            try:
                value = decode(data)
            except msgspec.ValidationError:
                raise InputError("not a JSON object") from None
            except msgspec.DecodeError as error:
                raise InputError(f"not valid JSON: {error}") from None
            if first:
                self._check_fields(value)
                first = False
                if self._first_file and options.key is not None and self._missing_key != "error":
                    self._keyless = value
            if self._keyless is not None and key in value:
                self._keyless = None
            head = self._head(value.get(key), value.get(event_id), value.get(timestamp))
            if head is None:
                yield None
                continue
            record_key, headers, moment_ms = head
            yield make((topic, record_key, data, moment_ms, headers))

    def _check_fields(self, row: Mapping[str, object]) -> None:
        """Raises InputError if the first row of the file lacks a field that each row must have: probably a typo."""
        options = self._options
        key = options.key if self._missing_key == "error" else None
        for name, purpose in ((key, "key"), (options.id, "event id"), (options.timestamp, "timestamp")):
            if name is not None and name not in row:
                raise InputError(
                    f"the first row has no field {name!r}, the {purpose}{did_you_mean(name, row)}",
                    hint=f"its fields: {', '.join(row) or 'none'}. {_OTHER_KEYS if purpose == 'key' else ''}".rstrip(),
                )

"""Rows of JSON lines. The value of a record has the bytes of the line, without surrounding white space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.core.suggestions import did_you_mean
from pipeline.errors import InputError
from pipeline.ops.loading.formats.lines import Lines
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowLimits
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["JsonRows"]

_OTHER_KEYS = (
    "To accept rows without a key, give --on-missing-key null, or --on-missing-key skip to leave them out"
)


class JsonRows(FileRows):
    """Rows of a file in which each line is a JSON object."""

    def __init__(
        self, lines: Lines, topic: str, options: LoadOptions, missing_key: MissingKey, limits: RowLimits
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
        self._lines = lines
        if options.null or options.text:
            raise InputError(
                "--null and --text are for CSV only: JSON has its own null and text", hint="leave them out"
            )

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

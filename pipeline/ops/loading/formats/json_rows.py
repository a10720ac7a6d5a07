"""Rows of JSON lines. The value of a record has the bytes of the line, without surrounding white space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.errors import InputError
from pipeline.ops.loading.formats.lines import Lines
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowLimits
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["JsonRows"]


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
            head = self._head(value.get(key), value.get(event_id), value.get(timestamp))
            if head is None:
                yield None
                continue
            record_key, headers, moment_ms = head
            yield make((topic, record_key, data, moment_ms, headers))

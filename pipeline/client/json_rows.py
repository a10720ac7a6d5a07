"""Lines that each hold one JSON object, which becomes the record's value byte for byte, without blanks around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipeline.client.cells import timestamp_ms
from pipeline.client.lines import Lines
from pipeline.client.positions import LoadOptions
from pipeline.client.rows import FileRows, MissingKey, RowLimits, text_of
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.errors import InputError
from pipeline.ports import Output

__all__ = ["JsonRows"]


class JsonRows(FileRows):
    """Lines that each hold one JSON object."""

    def __init__(
        self, lines: Lines, topic: str, options: LoadOptions, missing_key: MissingKey, limits: RowLimits
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
        self._lines = lines
        if options.null or options.text:
            raise InputError("--null and --text are for CSV: JSON says itself what is null and what is text")

    def _records(self) -> Iterator[Output | None]:
        topic, options = self._topic, self._options
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        headers: Sequence[tuple[str, bytes]] = ()
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
            key = None
            if options.key is not None:
                key = text_of(value.get(options.key), options.key, "the key") or self._no_key()
                if key is None and self._missing_key == "skip":
                    self._skipped += 1
                    yield None
                    continue
            if options.id is not None:
                event_id = text_of(value.get(options.id), options.id, "the event id")
                if event_id is None:
                    raise InputError(f"no {options.id!r} for the event id")
                headers = ((EVENT_ID_HEADER, event_id),)
            timestamp = self._now_ms
            if options.timestamp is not None:
                if value.get(options.timestamp) is None:
                    raise InputError(f"no {options.timestamp!r} for the timestamp")
                timestamp = timestamp_ms(value[options.timestamp])
            yield Output(topic, key, data, timestamp, headers)

"""The common part of the readers: converts rows to records, in batches with their exact end position in the file.

If a row is invalid, the batch contains the records before it and its error, so that the records before it are loaded.

Values are JSON objects: all columns of a CSV row (`cells.py` decides which cells become numbers), the line itself of
JSON lines, all columns of a Parquet row (`parquet_values.py`). Blank lines are skipped.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from pipeline.core.names import EVENT_ID_HEADER
from pipeline.core.records import iso_time
from pipeline.errors import InputError
from pipeline.ops.loading.formats.cells import MAX_TIMESTAMP_MS, Timestamps, timestamp_ms
from pipeline.ops.loading.formats.lines import ReadPosition
from pipeline.ops.loading.positions import LoadOptions
from pipeline.ports import Output

__all__ = ["Cursor", "FileRows", "MissingKey", "RowBatch", "RowLimits", "row_type"]

MissingKey = Literal["error", "null", "skip"]
_2001_S = 1_000_000_000
_SMALL_MS = 10 * _2001_S  # the year 1970; in seconds, the year 2286
Headers = Sequence[tuple[str, bytes]]
Head = tuple[bytes | None, Headers, int]  # of a record: key, headers, timestamp in epoch ms


@dataclass(frozen=True, slots=True)
class RowLimits:
    """The limits of a batch, and of a record in the topic: its largest size, its oldest and newest timestamp."""

    batch_rows: int = 10_000
    batch_bytes: int = 8 * 1024 * 1024
    record_bytes: int = 1_000_000
    oldest_ms: int = 0
    newest_ms: int = MAX_TIMESTAMP_MS


@dataclass(frozen=True, slots=True)
class RowBatch:
    """The records of some rows.

    `size`: bytes of keys and values. `skipped`: rows without a key. `end`: the position after the rows. `finished`: the
    file ends there. `error`: why the row after `end` is invalid.
    """

    outputs: Sequence[Output]
    size: int
    skipped: int
    end: ReadPosition
    finished: bool
    error: InputError | None


class Cursor(Protocol):
    """The position in a file: which lines, or rows of a Parquet file, were read, and which of them were taken."""

    @property
    def name(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def pending(self) -> Sequence[object]:
        """One item for each line or row that was read and not taken."""
        ...

    @property
    def ends_line(self) -> bool: ...
    def take(self, count: int) -> ReadPosition: ...
    def mark(self) -> ReadPosition: ...
    def skip_to(self, offset: int, line: int) -> ReadPosition: ...
    def skip_to_end(self) -> ReadPosition: ...
    def at_end(self) -> bool: ...
    def share(self) -> float | None:
        """The share of the file that is taken; None if the number of bytes read shows it better."""
        ...


class FileRows:
    """Reads the rows of one file in batches. Subclasses implement a format.

    `columns`: their names; None if each row has its own. `text_columns`: the columns of a CSV file that are text.
    """

    columns: tuple[str, ...] | None = None
    text_columns: tuple[str, ...] | None = None
    unit = "line"
    repair = "fix the line and run the same command again"

    def __init__(
        self, cursor: Cursor, topic: str, options: LoadOptions, missing_key: MissingKey, limits: RowLimits
    ) -> None:
        self.cursor = cursor
        self._topic = topic
        self._options = options
        self._missing_key = missing_key
        self._limits = limits
        self._skipped = 0
        self._now_ms = 0
        self._times = Timestamps()
        self._iterator = self._records()

    def read(self, now_ms: int, rows: int | None = None, size_limit: int | None = None) -> RowBatch:
        """The next batch.

        Args:
            now_ms: The timestamp of records whose rows have none.
            rows: The most rows, if not that of the limits.
            size_limit: The most bytes, if not those of the limits.
        """
        self._now_ms = now_ms
        outputs: list[Output] = []
        limits, pending = self._limits, self.cursor.pending
        batch_rows = limits.batch_rows if rows is None else rows
        batch_bytes = limits.batch_bytes if size_limit is None else size_limit
        record_bytes, oldest_ms, newest_ms = limits.record_bytes, limits.oldest_ms, limits.newest_ms
        good = size = self._skipped = 0
        finished = False
        error: InputError | None = None
        try:
            for output in self._iterator:
                if output is not None:
                    bytes_ = len(output.value or b"") + len(output.key or b"")
                    if bytes_ > record_bytes or not oldest_ms <= output.timestamp_ms <= newest_ms:
                        raise self._unfit(output, bytes_)
                    outputs.append(output)
                    size += bytes_
                good = len(pending)
                if good >= batch_rows or size >= batch_bytes:
                    break
            else:
                finished, good = True, len(pending)
        except InputError as wrong:
            error = self._placed(wrong.message, good, wrong.hint)
        except csv.Error as wrong:
            error = self._placed(f"not valid CSV: {wrong}", good)
        except UnicodeDecodeError as wrong:
            error = self._placed(f"not valid UTF-8: byte {wrong.object[wrong.start]:#04x}", len(pending) - 1)
        return RowBatch(outputs, size, self._skipped, self.cursor.take(good), finished, error)

    def _records(self) -> Iterator[Output | None]:
        """One item for each row, None for a row that is skipped. Starts when the first batch is read."""
        raise NotImplementedError

    def _placed(self, what: str, ahead: int, repair: str | None = None) -> InputError:
        number = self.cursor.line + ahead + 1
        loaded = f"all rows before this {self.unit} are loaded; " if number > 1 else ""
        return InputError(
            f"{self.cursor.name}, {self.unit} {number}: {what}", hint=f"{loaded}{repair or self.repair}"
        )

    def _unfit(self, output: Output, size: int) -> InputError:
        limits = self._limits
        if size > limits.record_bytes:
            return InputError(
                f"the record has {size:,} bytes; topic {self._topic!r} accepts at most {limits.record_bytes:,}"
                " (max.message.bytes)"
            )
        time = f"its timestamp {output.timestamp_ms:,} ms, which is {iso_time(output.timestamp_ms)},"
        if output.timestamp_ms < limits.oldest_ms:
            return InputError(
                f"{time} is older than topic {self._topic!r} allows (retention.ms, message.timestamp.before.max.ms):"
                f" Kafka would delete or refuse the record. {_cause_of(output.timestamp_ms)}Change these settings, or"
                " leave out --timestamp"
            )
        return InputError(
            f"{time} is further in the future than topic {self._topic!r} allows (message.timestamp.after.max.ms)"
        )

    def _head(self, key: object, event_id: object, time: object) -> Head | None:
        """Key, headers and timestamp of a record, from the fields that the options name; None to skip the row."""
        options, found = self._options, None
        if options.key is not None:
            found = (
                key.encode() if type(key) is str else _text(key, options.key, "the key")
            ) or self._no_key()
            if found is None and self._missing_key == "skip":
                self._skipped += 1
                return None
        headers: Headers = ()
        if options.id is not None:
            text = _text(event_id, options.id, "the event id")
            if text is None:
                raise InputError(f"field {options.id!r}, the event id, is missing or empty")
            headers = ((EVENT_ID_HEADER, text),)
        if options.timestamp is None:
            return found, headers, self._now_ms
        if time is None:
            raise InputError(f"field {options.timestamp!r}, the timestamp, is missing or null")
        return found, headers, self._times[time] if isinstance(time, str) else timestamp_ms(time)

    def _no_key(self) -> bytes | None:
        """The key of a row without one, under the policies null and skip. Raises InputError under error."""
        if self._missing_key == "error":
            raise InputError(
                f"field {self._options.key!r}, the key, is missing or empty; to accept such rows, give"
                " --on-missing-key null, or --on-missing-key skip to leave them out"
            )
        return None


def _cause_of(old_ms: int) -> str:
    """The likely cause of a timestamp in or near 1970, as a sentence; otherwise nothing."""
    if old_ms >= _SMALL_MS:
        return ""
    if old_ms >= _2001_S:
        return f"Is it in seconds? {old_ms:,} s is {iso_time(old_ms * 1000)}, and --timestamp needs milliseconds. "
    return "The field is probably not a time. "


def _text(found: object, field: str, purpose: str) -> bytes | None:
    """The value of a field as UTF-8 text; None if it is null or empty. Raises InputError for other types."""
    if isinstance(found, str):
        return found.encode() or None
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found).encode()
    raise InputError(f"{field!r} is {type(found).__name__}; {purpose} must be text or a whole number")


def row_type(names: Sequence[str]) -> Callable[..., msgspec.Struct]:
    """A type with one field for each column. Creating and encoding it takes half the time of a dict."""
    fields = {f"f{index}": name for index, name in enumerate(names)}
    return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=fields, gc=False)

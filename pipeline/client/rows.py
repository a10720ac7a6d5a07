"""CSV and JSON lines to records, in batches that know exactly where in the file they end.

A batch holds records up to a row that is wrong, and then that row's error: what precedes a bad line is never
lost with it. Values are JSON objects: of CSV every column (see `pipeline.client.cells` for what becomes a
number), of JSON lines the line itself, byte for byte without the blanks around it. Blank lines are passed over.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, Protocol

import msgspec

from pipeline.client.cells import MAX_TIMESTAMP_MS, Numbers, Timestamps, text_columns, timestamp_ms
from pipeline.client.lines import Lines, Mark
from pipeline.client.load import LoadOptions
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.errors import InputError
from pipeline.ports import Output

__all__ = ["Batch", "CsvRows", "JsonRows", "MissingKey", "RowLimits", "Rows", "open_rows"]

MissingKey = Literal["error", "null", "skip"]

_SAMPLE_BYTES = 256 * 1024
_MAX_CELL_CHARS = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RowLimits:
    """Where a batch ends, and what the topic takes: the largest record, the oldest and the newest time."""

    batch_rows: int = 10_000
    batch_bytes: int = 8 * 1024 * 1024
    record_bytes: int = 1_000_000
    oldest_ms: int = 0
    newest_ms: int = MAX_TIMESTAMP_MS


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of some lines. `finished`: the file ends here. `error`: the line after `end` is wrong."""

    outputs: Sequence[Output]
    skipped: int
    end: Mark
    finished: bool
    error: InputError | None


class Rows(Protocol):
    """Reads one file to its end."""

    @property
    def text_columns(self) -> tuple[str, ...] | None: ...

    def read(self, now_ms: int) -> Batch:
        """The next batch; `now_ms` is the timestamp of records whose line gives none."""
        ...


class _Rows:
    """What both formats share: batches, places in messages, the policy for missing keys."""

    def __init__(
        self, lines: Lines, topic: str, options: LoadOptions, missing_key: MissingKey, limits: RowLimits
    ) -> None:
        self._lines = lines
        self._topic = topic
        self._options = options
        self._missing_key = missing_key
        self._limits = limits
        self._skipped = 0
        self._now_ms = 0
        self._iterator = self._records()

    def read(self, now_ms: int) -> Batch:
        self._now_ms = now_ms
        outputs: list[Output] = []
        pending = self._lines.pending
        limits = self._limits
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
                if good >= limits.batch_rows or size >= limits.batch_bytes:
                    break
            else:
                finished, good = True, len(pending)
        except InputError as wrong:
            error = self._placed(wrong.message, good)
        except csv.Error as wrong:
            error = self._placed(f"not valid CSV: {wrong}", good)
        except UnicodeDecodeError as wrong:
            error = self._placed(f"not valid UTF-8: byte {wrong.object[wrong.start]:#04x}", len(pending) - 1)
        return Batch(outputs, self._skipped, self._lines.take(good), finished, error)

    def _records(self) -> Iterator[Output | None]:
        """One item a row, None for a row that is skipped. Runs first when the first batch is read."""
        raise NotImplementedError

    def _placed(self, what: str, ahead: int) -> InputError:
        return InputError(
            f"{self._lines.name}, line {self._lines.line + ahead + 1}: {what}",
            hint="everything before this line is loaded; mend the line and run the same command again",
        )

    def _unfit(self, output: Output, size: int) -> InputError:
        limits = self._limits
        if size > limits.record_bytes:
            return InputError(
                f"the record has {size:,} bytes; topic {self._topic!r} takes {limits.record_bytes:,} at most"
                " (max.message.bytes)"
            )
        if output.timestamp_ms < limits.oldest_ms:
            return InputError(
                f"its time is older than topic {self._topic!r} keeps records for (retention.ms,"
                " message.timestamp.before.max.ms): Kafka would delete or refuse it. Set them, or leave out"
                " --timestamp"
            )
        return InputError(
            f"its time lies further in the future than topic {self._topic!r} allows"
            " (message.timestamp.after.max.ms)"
        )

    def _no_key(self) -> bytes | None:
        """Under the policies null and skip the key of a row without one. Raises InputError under error."""
        if self._missing_key == "error":
            raise InputError(
                f"no {self._options.key!r} for the key; --on-missing-key skip, or null, lets such rows pass"
            )
        return None


class CsvRows(_Rows):
    """Rows of a CSV file: comma, double quotes, a header line. Reads the header and a sample when built."""

    def __init__(
        self,
        lines: Lines,
        topic: str,
        options: LoadOptions,
        missing_key: MissingKey,
        limits: RowLimits,
        decided: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
        csv.field_size_limit(_MAX_CELL_CHARS)
        sample = lines.peek(_SAMPLE_BYTES)
        self._reader = csv.reader(map(bytes.decode, lines), strict=True)
        self._names = self._header()
        self.text_columns: tuple[str, ...] | None = decided if decided is not None else self._sampled(sample)
        for name in (options.key, options.id, options.timestamp, *options.text, *self.text_columns):
            if name is not None and name not in self._names:
                raise InputError(
                    f"{lines.name} has no column {name!r}", hint=f"its columns: {', '.join(self._names)}"
                )

    def _header(self) -> list[str]:
        lines = self._lines
        try:
            names = next((row for row in self._reader if row), None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{lines.name}: the header line cannot be read: {error}") from error
        if names is None:
            raise InputError(f"{lines.name} is empty: a CSV file begins with a line that names the columns")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{lines.name}: the header names the column {twice[0]!r} more than once")
        lines.take(len(lines.pending))
        return names

    def _sampled(self, sample: list[bytes]) -> tuple[str, ...]:
        rows: list[list[str]] = []
        with suppress(csv.Error, UnicodeDecodeError):  # a cut or bad row: reading it properly tells where
            rows.extend(csv.reader(map(bytes.decode, sample), strict=True))
        below = [row for row in rows if row][1:]
        found = {self._names[index] for index in text_columns(below, len(self._names), self._options.null)}
        return tuple(name for name in self._names if name in found.union(self._options.text))

    def _records(self) -> Iterator[Output | None]:
        names, topic, options = self._names, self._topic, self._options
        width = len(names)
        nulls = frozenset(options.null)
        missing = nulls | {""}
        text = [index for index, name in enumerate(names) if name in (self.text_columns or ())]
        numeric = [index for index in range(width) if index not in text]
        order = numeric + text
        numbers_of, texts_of = _picker(numeric), _picker(text)
        in_file_order = _picker([order.index(index) for index in range(width)])
        number: Callable[[str], Any] = Numbers(options.null).__getitem__
        value_of, encode = _row_type(names), msgspec.json.Encoder().encode
        key_of, id_of, time_of = (self._cell(name) for name in (options.key, options.id, options.timestamp))
        time_ms = Timestamps()
        headers: Sequence[tuple[str, bytes]] = ()
        make = Output._make
        reader: Iterator[list[Any]] = self._reader
        for row in reader:
            if len(row) != width:
                if not row:
                    yield None
                    continue
                raise InputError(f"{len(row)} columns, and the header names {width}")
            key = None
            if key_of is not None:
                cell = key_of(row)
                if cell not in missing:
                    key = cell.encode()
                else:
                    key = self._no_key()
                    if self._missing_key == "skip":
                        self._skipped += 1
                        yield None
                        continue
            if id_of is not None:
                cell = id_of(row)
                if cell in missing:
                    raise InputError(f"no {options.id!r} for the event id")
                headers = ((EVENT_ID_HEADER, cell.encode()),)
            timestamp = self._now_ms if time_of is None else time_ms[time_of(row)]
            if nulls:
                for index in text:
                    if row[index] in nulls:
                        row[index] = None
            value = value_of(*in_file_order((*map(number, numbers_of(row)), *texts_of(row))))
            yield make((topic, key, encode(value), timestamp, headers))

    def _cell(self, name: str | None) -> Callable[[Sequence[str]], str] | None:
        return None if name is None else itemgetter(self._names.index(name))


class JsonRows(_Rows):
    """Lines that each hold one JSON object."""

    text_columns: tuple[str, ...] | None = None

    def __init__(
        self, lines: Lines, topic: str, options: LoadOptions, missing_key: MissingKey, limits: RowLimits
    ) -> None:
        super().__init__(lines, topic, options, missing_key, limits)
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
                key = _text(value, options.key, "the key") or self._no_key()
                if key is None and self._missing_key == "skip":
                    self._skipped += 1
                    yield None
                    continue
            if options.id is not None:
                event_id = _text(value, options.id, "the event id")
                if event_id is None:
                    raise InputError(f"no {options.id!r} for the event id")
                headers = ((EVENT_ID_HEADER, event_id),)
            timestamp = self._now_ms
            if options.timestamp is not None:
                if value.get(options.timestamp) is None:
                    raise InputError(f"no {options.timestamp!r} for the timestamp")
                timestamp = timestamp_ms(value[options.timestamp])
            yield Output(topic, key, data, timestamp, headers)


def open_rows(
    lines: Lines,
    topic: str,
    options: LoadOptions,
    missing_key: MissingKey,
    limits: RowLimits,
    decided: tuple[str, ...] | None,
) -> Rows:
    """The reader for the format. `decided` are the text columns of a load that goes on. Raises InputError."""
    if options.format == "csv":
        return CsvRows(lines, topic, options, missing_key, limits, decided)
    return JsonRows(lines, topic, options, missing_key, limits)


def _row_type(names: Sequence[str]) -> Callable[..., msgspec.Struct]:
    """A type with one field a column: made and encoded in half the time of a dict."""
    fields = {f"f{index}": name for index, name in enumerate(names)}
    return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=fields, gc=False)


def _picker(indexes: Sequence[int]) -> Callable[[Sequence[str]], Sequence[str]]:
    if len(indexes) == 1:
        only = indexes[0]
        return lambda row: (row[only],)
    return itemgetter(*indexes) if indexes else lambda _: ()


def _text(value: dict[str, Any], field: str, purpose: str) -> bytes | None:
    """The field as UTF-8 text; None when it is absent, null or empty. Only text and whole numbers pass."""
    found = value.get(field)
    if isinstance(found, str):
        return found.encode() or None
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found).encode()
    raise InputError(f"{field!r} is {type(found).__name__}; {purpose} must be text or a whole number")

"""Parquet files as records: what values become, where a load stands in a file, what is refused."""

from __future__ import annotations

import io
import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.errors import InputError
from pipeline.ops.loading.formats.compression import Opened
from pipeline.ops.loading.formats.parquet import ParquetFile
from pipeline.ops.loading.formats.readers import Reading, open_rows
from pipeline.ops.loading.formats.rows import RowBatch, RowLimits
from pipeline.ops.loading.positions import LoadOptions
from tests.support.ops.loading.sequences import read_all, sequence_of, step

OPTIONS = LoadOptions(format="parquet")
INF = float("inf")


def _file(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, **options)
    return out.getvalue()


def _numbers(count: int, **options: Any) -> bytes:
    return _file(pa.table({"n": list(range(count))}), **options)


def _read(table: pa.Table, missing: Any = "error", **options: Any) -> RowBatch:
    reading = Reading("t", LoadOptions(format="parquet", **options), missing, RowLimits())
    return open_rows(Opened("rows.parquet", io.BytesIO(_file(table)), None), reading, None).read(now_ms=5)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, -(2**63)], pa.int64(), [1, None, -(2**63)]),
        ([2**64 - 1], pa.uint64(), [2**64 - 1]),
        ([True, None], pa.bool_(), [True, None]),
        (["é\n", None, ""], pa.string(), ["é\n", None, ""]),
        (["a"], pa.large_string(), ["a"]),
        ([None, None], pa.null(), [None, None]),
        ([1.5, None, float("nan"), INF, -INF], pa.float64(), [1.5, None, None, "Infinity", "-Infinity"]),
        ([0.1], pa.float32(), [0.10000000149011612]),
        ([Decimal("12.30"), None, Decimal("-0.05")], pa.decimal128(38, 2), ["12.30", None, "-0.05"]),
        ([date(2013, 1, 2), None], pa.date32(), ["2013-01-02", None]),
        ([time(1, 2, 3, 4)], pa.time64("us"), ["01:02:03.000004"]),
        (
            [datetime.fromisoformat("2013-01-02T03:04:05"), None],
            pa.timestamp("ms"),
            ["2013-01-02T03:04:05.000", None],
        ),
        ([1_357_095_845_123_456_789], pa.timestamp("ns"), ["2013-01-02T03:04:05.123456789"]),
        (
            [datetime(2013, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5)))],
            pa.timestamp("us", "America/New_York"),
            ["2013-01-02T08:04:05.000000Z"],
        ),
        ([timedelta(milliseconds=7)], pa.duration("ms"), [7]),
        ([b"\x00\xff", None], pa.binary(), ["AP8=", None]),
        ([b"ab"], pa.binary(2), ["YWI="]),
        ([[1, None], None, []], pa.list_(pa.int8()), [[1, None], None, []]),
        ([[[INF]], [[], None]], pa.list_(pa.list_(pa.float64())), [[["Infinity"]], [[], None]]),
        (
            [{"d": date(2013, 1, 1), "m": [b"x"]}, None],
            pa.struct([("d", pa.date32()), ("m", pa.list_(pa.binary()))]),
            [{"d": "2013-01-01", "m": ["eA=="]}, None],
        ),
        (
            [[("a", 1), ("b", None)], None, []],
            pa.map_(pa.string(), pa.int8()),
            [{"a": 1, "b": None}, None, {}],
        ),
        ([[(1, "x")]], pa.map_(pa.int8(), pa.string()), [[{"key": 1, "value": "x"}]]),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
        ([b"0123456789abcdef"], pa.uuid(), ["30313233-3435-3637-3839-616263646566"]),
    ],
)
def test_each_type_has_its_form_in_json(values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    """The table in the documents; nothing is rounded, and no number becomes another."""
    batch = _read(pa.table({"v": pa.array(values, kind)}))
    assert batch.error is None
    assert [json.loads(output.value or b"") for output in batch.outputs] == [
        {"v": value} for value in expected
    ]


def test_a_row_is_an_object_of_its_columns_in_their_order() -> None:
    """People compare the topic with the file."""
    batch = _read(pa.table({"b": [1], "a": ["x"], "c d": [None]}))
    assert batch.outputs[0].value == b'{"b":1,"a":"x","c d":null}'
    assert (batch.end.offset, batch.end.line, batch.finished) == (1, 1, True)


def test_keys_ids_and_times_come_from_their_columns() -> None:
    """The same options as for the other formats, and the same rules."""
    moment = datetime.fromisoformat("2013-01-01T00:00:00.007")
    table = pa.table({"k": [7, None], "i": ["a", "b"], "t": [moment, moment], "d": [date(1970, 1, 2)] * 2})
    batch = _read(table, "null", key="k", id="i", timestamp="t")
    assert [output.key for output in batch.outputs] == [b"7", None]
    assert batch.outputs[0].headers == (("event-id", b"a"),)
    assert batch.outputs[0].timestamp_ms == 1_356_998_400_007
    assert _read(table, timestamp="d").outputs[0].timestamp_ms == 86_400_000
    assert _read(table).outputs[0].timestamp_ms == 5
    skipped = _read(table, "skip", key="k")
    assert (len(skipped.outputs), skipped.skipped, skipped.end.line) == (1, 1, 2)
    stopped = _read(table, key="k")
    assert stopped.error is not None
    assert "rows.parquet, row 2: field 'k', the key, is missing or empty" in stopped.error.message
    assert "under another --name" in str(stopped.error.hint)
    floats = _read(pa.table({"k": [1.0]}), key="k")
    assert floats.error is not None
    assert "must be text or a whole number" in floats.error.message


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 100),
)
def test_from_each_row_a_load_continues_with_what_is_left(
    sizes: list[int], group: int, rows: int, stop: int
) -> None:
    """Row groups and batches begin and end anywhere."""
    files = {f"{i}.parquet": _numbers(size, row_group_size=group) for i, size in enumerate(sizes)}
    sequence, position = sequence_of(files, OPTIONS, batch_rows=rows), None
    seen: list[bytes | None] = []
    sequence.begin(None)
    while len(seen) <= stop:
        stretch = sequence.read(0)
        seen += [output.value for output in stretch.outputs]
        position = step(position, stretch, OPTIONS)
        if stretch.finished:
            break
    rest, last = read_all(sequence_of(files, OPTIONS), position)
    assert seen + rest == [b'{"n":%d}' % n for size in sizes for n in range(size)]
    assert last.records == sum(sizes)


def test_a_changed_file_is_refused_even_where_its_footer_is_the_same() -> None:
    """Sizes and statistics do not tell of a value changed in the middle."""
    options = {"use_dictionary": False, "compression": "none"}
    data = _numbers(50, **options)
    sequence = sequence_of({"a.parquet": data}, OPTIONS, batch_rows=10)
    sequence.begin(None)
    position = step(None, sequence.read(0), OPTIONS)
    other = _file(pa.table({"n": [*range(20), 31, *range(21, 50)]}), **options)
    assert len(other) == len(data)
    assert other[-300:] == data[-300:]
    with pytest.raises(InputError, match="has changed since the load of 10 rows"):
        sequence_of({"a.parquet": other}, OPTIONS).begin(position)


def test_what_is_no_parquet_file_is_refused() -> None:
    """And so is one that was damaged on its way, at the row where it shows."""
    for data in (b"", b"a,b\n1,2\n", _numbers(1000)[:-20]):
        with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet"):
            sequence_of({"a.parquet": data}, OPTIONS).begin(None)
    damaged = bytearray(_numbers(5000, row_group_size=1000, use_dictionary=False, write_page_checksum=True))
    damaged[len(damaged) // 2] ^= 0x55
    sequence = sequence_of({"a.parquet": bytes(damaged)}, OPTIONS, batch_rows=10_000)
    sequence.begin(None)
    stretch = sequence.read(0)
    assert stretch.error is not None
    assert "the rest of the file cannot be read" in stretch.error.message
    assert stretch.end.mark.line == len(stretch.outputs)
    assert stretch.end.mark.line % 1000 == 0


@pytest.mark.parametrize(
    ("table", "options", "what"),
    [
        (pa.table({"a": [1]}), {"key": "b"}, "no column 'b'"),
        (pa.table({"a": [1]}), {"null": ("NA",)}, "for CSV"),
        (pa.table([pa.array([1]), pa.array([1])], names=["a", "a"]), {}, "more than one column 'a'"),
        (pa.table({"a": pa.array([], pa.struct([("x", pa.int8()), ("x", pa.int8())]))}), {}, "column 'a'"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_at_once(
    table: pa.Table, options: dict[str, Any], what: str
) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=what):
        _read(table, **options)


def test_files_with_other_columns_are_refused() -> None:
    """As of CSV: a topic has one kind of record."""
    files = {"a.parquet": _numbers(1), "b.parquet": _file(pa.table({"m": [1]}))}
    with pytest.raises(
        InputError, match=r"columns of b\.parquet are not those of a\.parquet: it lacks 'n' and has also 'm'"
    ):
        read_all(sequence_of(files, OPTIONS))


def test_memory_does_not_follow_the_size_of_a_row_group(tmp_path: Path) -> None:
    """Files of one huge row group are common, and a load must not need the machine that wrote them."""
    path = tmp_path / "rows.parquet"
    text = [f"{n:0200}" for n in range(200_000)]
    parquet.write_table(
        pa.table({"t": text}), path, row_group_size=200_000, use_dictionary=False, compression="none"
    )
    read = 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            data = super().read(size) or b""
            read += len(data)
            return data

    with Counted(path) as stream:
        rows = ParquetFile(stream, "rows.parquet")
        hashed = read
        next(rows.columns_of_values())
        assert read - hashed < path.stat().st_size // 4

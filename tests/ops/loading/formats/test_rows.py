"""CSV and JSON lines to records."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

import pytest

from pipeline.errors import InputError
from pipeline.ops.loading.formats.compression import Opened
from pipeline.ops.loading.formats.readers import Reading, open_rows
from pipeline.ops.loading.formats.rows import FileRows, MissingKey, RowBatch, RowLimits
from pipeline.ops.loading.positions import LoadOptions

Format = Literal["csv", "jsonl"]


def _rows(
    data: str | bytes,
    form: Format = "csv",
    missing: MissingKey = "error",
    limits: RowLimits | None = None,
    decided: tuple[str, ...] | None = None,
    **options: Any,
) -> FileRows:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    reading = Reading("t", LoadOptions(format=form, **options), missing, limits or RowLimits())
    return open_rows(Opened("rows.csv", stream, None), reading, decided)


def _read(data: str | bytes, form: Format = "csv", missing: MissingKey = "error", **options: Any) -> RowBatch:
    return _rows(data, form, missing, **options).read(now_ms=5)


def _values(batch: RowBatch) -> list[Any]:
    return [json.loads(output.value or b"null") for output in batch.outputs]


def test_a_row_is_an_object_of_its_columns_in_their_order() -> None:
    """People compare the topic with the file."""
    batch = _read("id,name,n\n1,Ann,2.5\n")
    assert [output.value for output in batch.outputs] == [b'{"id":1,"name":"Ann","n":2.5}']
    assert batch.finished
    assert batch.error is None


def test_quotes_may_hold_commas_quotes_and_line_ends_and_offsets_stay_true() -> None:
    """Offsets count bytes of the file, not rows: a resume in the middle of a cell would garble everything."""
    data = 'id,text\n1,"a, ""b""\nc"\n2,plain\n'
    rows = _rows(data, limits=RowLimits(batch_rows=2))
    first, second = rows.read(0), rows.read(0)
    assert _values(first) == [{"id": 1, "text": 'a, "b"\nc'}]
    assert (first.end.offset, first.end.line) == (data.index("2,plain"), 3)
    assert _values(second) == [{"id": 2, "text": "plain"}]
    assert second.end.offset == len(data)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_byte_order_marks_and_a_bare_last_line_make_no_difference(
    end: str, last: bool, mark: bytes
) -> None:
    """Files come from every system; the records must not show which."""
    data = mark + end.join(["kö,v", "1,ä", "2,🛩"]).encode() + (end.encode() if last else b"")
    batch = _read(data, key="kö")
    assert _values(batch) == [{"kö": 1, "v": "ä"}, {"kö": 2, "v": "🛩"}]
    assert [output.key for output in batch.outputs] == [b"1", b"2"]
    assert batch.end.offset == len(data)


def test_blank_lines_are_skipped() -> None:
    """They are common at the end of a file and hold nothing."""
    batch = _read("\nid\n1\n\n2\n\n\n")
    assert _values(batch) == [{"id": 1}, {"id": 2}]
    assert batch.end.line == 7
    assert _values(_read('\n{"a":1}\n \n', "jsonl")) == [{"a": 1}]


def test_cells_named_null_are_null_in_every_column() -> None:
    """NA stands for a missing number and for a missing text alike."""
    batch = _read("n,s\n1,x\nNA,NA\n,\n", null=("NA",))
    assert _values(batch) == [{"n": 1, "s": "x"}, {"n": None, "s": None}, {"n": "", "s": ""}]


def test_columns_that_are_not_all_numbers_are_text_throughout() -> None:
    """A handler declares one type for a column."""
    batch = _read("zip,n,flag\n02134,1,1\n90210,2,0\n", text=("flag",))
    assert _values(batch) == [{"zip": "02134", "n": 1, "flag": "1"}, {"zip": "90210", "n": 2, "flag": "0"}]


def test_a_load_that_continues_keeps_the_text_columns_it_began_with() -> None:
    """A file that has grown could be judged differently by its new beginning."""
    rows = _rows("a,b\n1,2\n", decided=("a",))
    assert rows.text_columns == ("a",)
    assert _values(rows.read(0)) == [{"a": "1", "b": 2}]


def test_the_key_is_the_text_of_the_cell() -> None:
    """A key made of a number must not depend on how JSON writes numbers."""
    assert [o.key for o in _read("k\n007\n1.50\n", key="k").outputs] == [b"007", b"1.50"]
    assert [o.key for o in _read('{"k":7}\n{"k":"é"}\n', "jsonl", key="k").outputs] == [b"7", "é".encode()]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_without_a_key_follow_the_policy(form: Format) -> None:
    """Dropping rows or spreading them over partitions must be the user's choice."""
    data = "k,v\nA,1\n,2\nB,3\n" if form == "csv" else '{"k":"A","v":1}\n{"v":2}\n{"k":"B","v":3}\n'
    stopped = _read(data, form, "error", key="k")
    assert [o.key for o in stopped.outputs] == [b"A"]
    line = 3 if form == "csv" else 2
    assert stopped.error is not None
    assert f"rows.csv, line {line}: field 'k', the key, is missing or empty" in stopped.error.message
    assert [o.key for o in _read(data, form, "null", key="k").outputs] == [b"A", None, b"B"]
    skipped = _read(data, form, "skip", key="k")
    assert ([o.key for o in skipped.outputs], skipped.skipped) == ([b"A", b"B"], 1)
    assert skipped.end.offset == len(data)


def test_a_first_json_row_without_the_field_shows_its_fields() -> None:
    """A mistyped --key is no defect of line 1."""
    error = _read('\n{"user":"A","n":1}\n', "jsonl", key="usr").error
    assert error is not None
    assert (
        error.message == "rows.csv, line 2: the first row has no field 'usr', the key; did you mean 'user'?"
    )
    assert "its fields: user, n. To accept rows without a key" in (error.hint or "")
    for option, purpose in (("id", "event id"), ("timestamp", "timestamp")):
        error = _read('{"a":1}\n', "jsonl", "null", key="k", **{option: "b"}).error
        assert error is not None
        assert error.message == f"rows.csv, line 1: the first row has no field 'b', the {purpose}"
        assert error.hint == "its fields: a."


@pytest.mark.parametrize("policy", ["null", "skip"])
def test_a_key_that_no_first_json_row_has_is_refused(policy: MissingKey) -> None:
    """A mistyped --key would spread all records over the partitions, or skip them all."""
    batch = _read('{"user":"A"}\n{"user":"B"}\n', "jsonl", policy, key="usr")
    assert (batch.outputs, batch.skipped, batch.finished) == ((), 0, False)
    assert batch.error is not None
    assert (
        batch.error.message
        == "rows.csv: none of the first 2 rows has the field 'usr', the key; did you mean 'user'?"
    )
    assert batch.error.hint == "the fields of the first row: user. If no row has a key, leave out --key"


def test_json_rows_that_may_all_lack_the_key_are_read() -> None:
    """A few rows without a key do not show that its name is wrong, nor do those after a row that has it."""
    few = _rows('{"n":1}\n{"k":"A"}\n', "jsonl", "null", RowLimits(batch_rows=1), key="k")
    assert [few.read(0).outputs[0].key for _ in range(2)] == [None, b"A"]
    many = '{"n":1}\n' * 200
    enough = _rows(many, "jsonl", "null", RowLimits(batch_rows=100), key="k").read(0).error
    assert enough is not None
    assert "none of the first 100 rows has the field 'k'" in enough.message
    assert _read('{"k":"A"}\n' + many, "jsonl", "skip", key="k").skipped == 200


def test_a_json_row_after_others_may_lack_a_field() -> None:
    """The other rows show that the field's name is right."""
    rows = _rows('{"k":1}\n{"k":2}\n{"n":1}\n', "jsonl", limits=RowLimits(batch_rows=2), key="k")
    rows.read(0)
    error = rows.read(0).error
    assert error is not None
    assert error.message.startswith("rows.csv, line 3: field 'k', the key, is missing or empty")
    continued = _rows('{"k":1}\n{"n":1}\n', "jsonl", key="k")
    continued.cursor.skip_to(8, 1)
    error = continued.read(0).error
    assert error is not None
    assert error.message.startswith("rows.csv, line 2: field 'k', the key, is missing or empty")


@pytest.mark.parametrize(
    ("time", "date", "cause"),
    [
        (17, "1970-01-01T00:00:00.017Z", "The field is probably not a time. Change"),
        (
            1_700_000_000,
            "1970-01-20T16:13:20.000Z",
            "Is it in seconds? 1,700,000,000 s is 2023-11-14T22:13:20.000Z",
        ),
        (1_600_000_000_000, "2020-09-13T12:26:40.000Z", "the record. Change these settings"),
    ],
)
def test_a_timestamp_that_is_too_old_is_named_with_its_date(time: int, date: str, cause: str) -> None:
    """A column that is not a time, or is in seconds, is a date of 1970."""
    rows = _rows(f"t\n{time}\n", limits=RowLimits(oldest_ms=1_650_000_000_000), timestamp="t")
    error = rows.read(0).error
    assert error is not None
    assert (
        f"line 2: its timestamp {time:,} ms, which is {date}, is older than topic 't' allows" in error.message
    )
    assert cause in error.message


def test_event_ids_and_times_come_from_their_fields() -> None:
    """Downstream deduplication rests on the id, windows on the time."""
    output = _read("i,t\ne-1,2013-01-01\n", id="i", timestamp="t").outputs[0]
    assert (output.headers, output.timestamp_ms) == ((("event-id", b"e-1"),), 1_356_998_400_000)
    output = _read('{"i":9,"t":17}', "jsonl", id="i", timestamp="t").outputs[0]
    assert (output.headers, output.timestamp_ms) == ((("event-id", b"9"),), 17)
    assert _read("a\n1\n").outputs[0].timestamp_ms == 5


def test_a_json_line_is_passed_on_byte_for_byte() -> None:
    """Numbers too long for a double and the order of fields are the sender's business."""
    line = '{"b": 12345678901234567890, "a": 1.10}'
    assert _read(f"  {line}  \r\n", "jsonl").outputs[0].value == line.encode()


@pytest.mark.parametrize(
    ("data", "form", "options", "line", "what"),
    [
        ("a,b\n1,2\n3\n4,5\n", "csv", {}, 3, "the row has 1 column, but the header has 2"),
        ("a,b\n\n\n1,2\n\n3\n", "csv", {}, 6, "the row has 1 column, but the header has 2"),
        ('a,b\n1,2\n"x\ny",2,3\n', "csv", {}, 3, "3 columns"),
        ('a\n1\n"open\n', "csv", {}, 3, "not valid CSV"),
        ('a\n1\n"x"y\n', "csv", {}, 3, "not valid CSV"),
        (b"a\n1\n\xff\n", "csv", {}, 3, "not valid UTF-8"),
        ("a,t\n1,1\n2,never\n", "csv", {"timestamp": "t"}, 3, "'never' is not a timestamp"),
        ("a,i\n1,1\n2,\n", "csv", {"id": "i"}, 3, "field 'i', the event id, is missing or empty"),
        ('{"a":1}\n{"a":\n', "jsonl", {}, 2, "not valid JSON"),
        ('{"a":1}\n[1]\n', "jsonl", {}, 2, "not a JSON object"),
        (b'{"a":1}\n{"a":"\xff"}\n', "jsonl", {}, 2, "not valid UTF-8"),
        ('{"k":1}\n{"k":[1]}\n', "jsonl", {"key": "k"}, 2, "the key must be text or a whole number"),
        ('{"t":1}\n{}\n', "jsonl", {"timestamp": "t"}, 2, "field 't', the timestamp, is missing"),
    ],
)
def test_a_bad_line_is_named_and_nothing_before_it_is_lost(
    data: str | bytes, form: Format, options: dict[str, Any], line: int, what: str
) -> None:
    """The rerun after the fix starts exactly at that line."""
    batch = _read(data, form, **options)
    assert len(batch.outputs) == 1
    assert batch.error is not None
    assert f"rows.csv, line {line}: " in batch.error.message
    assert what in batch.error.message
    assert batch.end.line == line - 1
    assert not batch.finished


def test_a_record_the_topic_would_refuse_is_named_by_its_line() -> None:
    """The broker would only say that some record of ten thousand is too large or too old."""
    limits = RowLimits(record_bytes=20, oldest_ms=10, newest_ms=20)
    for row, what in [("x" * 30 + ",15", "30 bytes|bytes; topic 't'"), ("a,9", "older"), ("a,21", "future")]:
        batch = _rows(f"a,t\nb,15\n{row}\n", limits=limits, timestamp="t").read(0)
        assert len(batch.outputs) == 1
        assert batch.error is not None
        assert batch.error.message.startswith("rows.csv, line 3: ")
        assert any(part in batch.error.message for part in what.split("|"))


def test_batches_end_at_the_row_and_at_the_byte_limit() -> None:
    """A transaction must fit the client's queue whatever the rows are like."""
    rows = _rows("a\n" + "x\n" * 5, limits=RowLimits(batch_rows=2))
    sizes = []
    while True:
        batch = rows.read(0)
        sizes.append(len(batch.outputs))
        if batch.finished:
            break
    assert sizes == [2, 2, 1]
    rows = _rows("a\n" + "xxxxxxxxxx\n" * 5, limits=RowLimits(batch_bytes=30))
    assert len(rows.read(0).outputs) == 2


@pytest.mark.parametrize(
    ("data", "options", "what"),
    [
        ("", {}, "is empty"),
        ("a,b,a\n", {}, "more than once"),
        ("a,b\n", {"key": "c"}, "no column 'c'"),
        ("a,b\n", {"text": ("c",)}, "no column 'c'"),
        (b"\xff\n", {}, "header line cannot be read"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_at_once(
    data: str | bytes, options: dict[str, Any], what: str
) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=what):
        _rows(data, **options)


def test_csv_options_are_refused_for_json() -> None:
    """An option without effect would be believed to have one."""
    with pytest.raises(InputError, match="for CSV"):
        _rows("{}", "jsonl", null=("NA",))


def test_a_file_longer_than_the_sample_is_read_whole() -> None:
    """The beginning is looked at twice and must be loaded once."""
    count = 60_000
    data = "id,word\n" + "".join(f"{n},w{n}\n" for n in range(count))
    rows = _rows(data)
    seen: list[int] = []
    while True:
        batch = rows.read(0)
        seen += [value["id"] for value in _values(batch)]
        if batch.finished:
            break
    assert seen == list(range(count))
    assert batch.end.offset == len(data)

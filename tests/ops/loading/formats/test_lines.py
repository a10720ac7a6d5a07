"""The bytes of a load: what counts as taken, and where that is in the file."""

from __future__ import annotations

import io

import pytest

from pipeline.errors import InputError
from pipeline.ops.loading.formats import lines as lines_module
from pipeline.ops.loading.formats.lines import Lines, ReadPosition, new_hash


def _lines(data: bytes) -> Lines:
    return Lines(io.BytesIO(data), "rows.csv")


def _mark(data: bytes, line: int) -> ReadPosition:
    digest = new_hash()
    digest.update(data)
    return ReadPosition(len(data), line, digest.hexdigest())


def test_only_lines_taken_count_for_the_position() -> None:
    """A line that was read ahead and not committed must be read again after a crash."""
    lines = _lines(b"one\ntwo\nthree\n")
    assert list(lines) == [b"one\n", b"two\n", b"three\n"]
    assert lines.take(2) == _mark(b"one\ntwo\n", 2)
    assert lines.pending == [b"three\n"]


def test_the_hash_does_not_depend_on_how_lines_were_taken() -> None:
    """A continued load hashes the prefix in one piece; it was hashed batch by batch before."""
    data = b"a\nbb\n\xc3\xa9\r\nd"
    whole, pieces = _lines(data), _lines(data)
    list(whole)
    for _ in pieces:
        pieces.take(1)
    assert whole.take(4) == pieces.mark() == _mark(data, 4)
    assert _lines(data).skip_to(len(data), 4) == whole.mark()


def test_skipping_continues_behind_the_lines_looked_at_before() -> None:
    """The sample that decides the columns' types must not be lost or loaded twice."""
    lines = _lines(b"one\ntwo\nthree\nfour")
    assert lines.peek(5) == [b"one\n", b"two\n"]
    assert lines.skip_to(4, 1) == _mark(b"one\n", 1)
    assert list(lines) == [b"two\n", b"three\n", b"four"]


def test_skipping_into_the_middle_of_a_line_stops_there() -> None:
    """A last line that has grown since is told from a changed one."""
    lines = _lines(b"one\ntwo\n")
    lines.peek(8)
    assert lines.skip_to(5, 1) == _mark(b"one\nt", 1)
    assert not lines.ends_line


def test_lines_looked_at_while_reading_come_next() -> None:
    """Looking for the end in the middle of a file must not reorder it."""
    lines = _lines(b"one\ntwo\nthree\n")
    reading = iter(lines)
    next(reading)
    lines.take(1)
    assert not lines.at_end()
    assert list(reading) == [b"two\n", b"three\n"]


def test_a_shorter_file_is_skipped_to_its_end_only() -> None:
    """The mark is how a cut file is told from a changed one."""
    assert _lines(b"one\n").skip_to(100, 7).offset == 4


def test_the_byte_order_mark_is_no_part_of_the_first_line_but_of_the_position() -> None:
    """Spreadsheets write one; the first column's name must not carry it, offsets must."""
    lines = _lines(b"\xef\xbb\xbfid\n\xef\xbb\xbfx\n")
    assert list(lines) == [b"id\n", b"\xef\xbb\xbfx\n"]
    assert lines.take(2).offset == 11


@pytest.mark.parametrize(("data", "ends"), [(b"", True), (b"a\n", True), (b"a", False), (b"a\nb", False)])
def test_a_last_line_without_an_end_is_known(data: bytes, ends: bool) -> None:
    """More bytes behind it would change a record that is loaded already."""
    lines = _lines(data)
    list(lines)
    lines.take(len(lines.pending))
    assert lines.ends_line is ends


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A binary file given by mistake has lines of any length."""
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 8)
    with pytest.raises(InputError, match="longer than 8 bytes"):
        list(_lines(b"short\n" + b"x" * 100))


def test_a_damaged_archive_is_an_input_error() -> None:
    """Users see a sentence, not the decompressor's traceback."""

    class Damaged(io.BytesIO):
        def readline(self, _size: int | None = -1, /) -> bytes:
            raise EOFError("ended before the end-of-stream marker")

    with pytest.raises(InputError, match="ended before"):
        list(Lines(Damaged(), "rows.gz"))
    with pytest.raises(InputError, match=r"rows\.gz cannot be read"):
        Lines(Damaged(), "rows.gz").peek(10)

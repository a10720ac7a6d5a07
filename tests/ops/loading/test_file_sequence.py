"""Many files as one load: it continues where it stopped, and only with the same files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.ops.loading.decisions import check_prefix
from pipeline.ops.loading.file_sequence import FileSequence
from pipeline.ops.loading.files import find_files
from pipeline.ops.loading.formats.readers import Reading
from pipeline.ops.loading.formats.rows import RowLimits
from pipeline.ops.loading.positions import LoadOptions, LoadPosition
from tests.support.ops.loading.sequences import OPTIONS, read_all, sequence_of, step

CSV = LoadOptions(format="csv")
_FILES = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def _json(sizes: list[int], *, last_end: bool = True) -> dict[str, bytes]:
    """Files of so many lines; the last line of each may be without its end."""
    found, number = {}, 0
    for index, size in enumerate(sizes):
        lines = [json.dumps({"n": n}) for n in range(number, number + size)]
        number += size
        found[f"{index}.jsonl"] = "".join(f"{line}\n" for line in lines).encode()
        if not last_end:
            found[f"{index}.jsonl"] = found[f"{index}.jsonl"].rstrip(b"\n")
    return found


def _csv(sizes: list[int]) -> dict[str, bytes]:
    found, number = {}, 0
    for index, size in enumerate(sizes):
        rows = "".join(f'{n},"t\n{n}"\n' for n in range(number, number + size))
        found[f"{index}.csv"] = f"n,t\n{rows}".encode()
        number += size
    return found


def _positions(files: dict[str, bytes], options: LoadOptions, rows: int) -> list[tuple[int, LoadPosition]]:
    """Each position of a load, and how many records precede it."""
    sequence, found, position, count = sequence_of(files, options, batch_rows=rows), [], None, 0
    sequence.begin(None)
    while True:
        stretch = sequence.read(0)
        count += len(stretch.outputs)
        position = step(position, stretch, options)
        found.append((count, position))
        if stretch.finished:
            return found


@given(_FILES, st.integers(1, 12), st.booleans())
def test_files_are_read_one_after_the_other(sizes: list[int], rows: int, last_end: bool) -> None:
    """Every line once, in the list's order, however batches and files overlap."""
    values, position = read_all(sequence_of(_json(sizes, last_end=last_end), batch_rows=rows))
    assert values == [b'{"n": %d}' % n for n in range(sum(sizes))]
    assert (position.finished, position.records) == (True, sum(sizes))
    assert position.finished_files.count == len(sizes) - 1


@given(_FILES, st.integers(1, 12), st.sampled_from(["csv", "jsonl"]), st.data())
def test_from_each_position_a_load_continues_with_what_is_left(
    sizes: list[int], rows: int, form: str, data: st.DataObject
) -> None:
    """Continuing rests on the position alone: another batch size, more files and a longer last one included."""
    files, options = (_csv(sizes), CSV) if form == "csv" else (_json(sizes), OPTIONS)
    whole, _ = read_all(sequence_of(files, options))
    count, position = data.draw(st.sampled_from(_positions(files, options, rows)))
    rest, last = read_all(sequence_of(files, options, batch_rows=data.draw(st.integers(1, 9))), position)
    assert rest == whole[count:]
    assert last.records == len(whole)
    more = {**files, f"new.{form}": b"n,t\n-1,x\n" if form == "csv" else b'{"n": -1}\n'}
    added, last = read_all(sequence_of(more, options), position)
    assert added[: len(rest)] == rest
    assert len(added) == len(rest) + 1
    assert last.finished_files.count == len(sizes)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.integers(1, 9), st.data())
def test_a_list_that_begins_otherwise_is_refused(sizes: list[int], rows: int, data: st.DataObject) -> None:
    """Its rows would be loaded twice, or never."""
    files = _json(sizes)
    position = data.draw(
        st.sampled_from([p for _, p in _positions(files, OPTIONS, rows) if p.finished_files.count])
    )
    victim = data.draw(st.sampled_from(list(files)[: position.finished_files.count]))
    kind = data.draw(st.sampled_from(["changed", "missing", "swapped", "longer", "renamed"]))
    names = list(files)
    if kind == "changed":
        other = {**files, victim: files[victim].replace(b'"n"', b'"m"')}
    elif kind == "longer":
        other = {**files, victim: files[victim] + b'{"n": 0}\n'}
    elif kind == "missing":
        other = {name: content for name, content in files.items() if name != victim}
    elif kind == "renamed":
        other = {("other" if name == victim else name): content for name, content in files.items()}
    else:
        at = names.index(victim)
        names[at], names[at + 1] = names[at + 1], names[at]
        other = {name: files[name] for name in names}
    with pytest.raises(InputError, match="of the list") as refusal:
        read_all(sequence_of(other), position)
    assert victim in refusal.value.message


def test_files_may_be_moved_and_packed_between_runs() -> None:
    """Log rotation packs what is old; its rows are the same."""
    files = _json([3, 3, 3])
    _, position = _positions(files, OPTIONS, 4)[0]
    moved = {f"old/{name}.gz": content for name, content in files.items()}  # unpacked by whoever opens them
    assert len(read_all(sequence_of(moved), position)[0]) == 5


def test_a_finished_load_has_nothing_left_and_takes_what_is_added() -> None:
    """The nightly job names all files; only the new ones are loaded."""
    files = _json([3, 3])
    _, position = read_all(sequence_of(files))
    assert sequence_of(files).begin(position)
    more = {**files, "2.jsonl": b'{"n": 6}\n'}
    values, position = read_all(sequence_of(more), position)
    assert values == [b'{"n": 6}']
    assert sequence_of(more).begin(position)


def test_of_the_last_file_what_it_has_grown_by_is_loaded_before_the_next() -> None:
    """It was not finished: it was the last."""
    files = _json([2, 2])
    _, position = read_all(sequence_of(files))
    grown = {**files, "1.jsonl": files["1.jsonl"] + b'{"n": 4}\n', "2.jsonl": b'{"n": 5}\n'}
    assert read_all(sequence_of(grown), position)[0] == [b'{"n": 4}', b'{"n": 5}']


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_last_line_that_was_loaded_without_its_end_must_not_continue(rows: int) -> None:
    """However the batches fell: its record is loaded, and was another one."""
    files = {"a.csv": b"n\n1\n2"}
    for _, position in _positions(files, CSV, rows):
        if position.offset == 5:
            with pytest.raises(InputError, match="was loaded without a line end"):
                sequence_of({"a.csv": b"n\n1\n25\n"}, CSV).begin(position)


def test_a_file_that_cannot_be_read_ends_the_load_behind_the_one_before() -> None:
    """The rows before it are loaded, and the load of the corrected file continues from there."""
    files = {"a.csv": b"n\n1\n", "b.csv": b"", "c.csv": b"n\n3\n"}
    sequence = sequence_of(files, CSV)
    sequence.begin(None)
    stretch = sequence.read(0)
    assert stretch.error is not None
    assert "b.csv is empty" in stretch.error.message
    assert len(stretch.outputs) == 1
    position = step(None, stretch, CSV)
    repaired = {**files, "b.csv": b"n\n2\n"}
    assert read_all(sequence_of(repaired, CSV), position)[0] == [b'{"n":2}', b'{"n":3}']
    without = {name: content for name, content in files.items() if name != "b.csv"}
    assert read_all(sequence_of(without, CSV), position)[0] == [b'{"n":3}']


@pytest.mark.parametrize(
    ("header", "said"),
    [(b"b,a,c", "not those of 0.csv: it has also 'c'"), (b"b", "not those of 0.csv: it lacks 'a'")],
)
def test_csv_files_with_other_columns_are_refused(header: bytes, said: str) -> None:
    """A handler declares one type for a topic; whether continued or not, and wherever the load stands."""
    files = {
        "0.csv": b"a,b\n1,x\n",
        "1.csv": b"b,a\ny,2\n",
        "2.csv": header + b"\n" + b"z,3,4"[: len(header)] + b"\n",
    }
    for position in (
        None,
        *(p for _, p in _positions(dict(list(files.items())[:2]), LoadOptions(format="csv"), 1)),
    ):
        with pytest.raises(InputError, match=said):
            read_all(sequence_of(files, CSV), position)


def test_columns_may_come_in_another_order_and_keep_their_kind() -> None:
    """The first file decides what is text: a column is the same thing in all of them."""
    files = {"0.csv": b"zip,n\n02134,1\n", "1.csv": b"n,zip\n2,90210\n"}
    assert read_all(sequence_of(files, CSV))[0] == [b'{"zip":"02134","n":1}', b'{"n":2,"zip":"90210"}']


def test_a_file_without_rows_does_not_decide_what_columns_are() -> None:
    """Every column would be one of numbers, and zip codes with and without a leading zero two kinds of value."""
    files = {"0.csv": b"zip\n", "1.csv": b"zip\n02134\n90210\n"}
    expected = [b'{"zip":"02134"}', b'{"zip":"90210"}']
    assert read_all(sequence_of(files, CSV))[0] == expected
    nothing, position = read_all(sequence_of({"0.csv": files["0.csv"]}, CSV))
    assert nothing == []
    assert read_all(sequence_of(files, CSV), position)[0] == expected
    assert read_all(sequence_of({"0.csv": files["1.csv"]}, CSV), position)[0] == expected


def test_rows_that_came_after_the_look_decide_once_and_for_all() -> None:
    """A header alone, and the first row a moment later: the next run must not decide otherwise."""
    files = {"0.csv": b"zip\n"}
    sequence = sequence_of(files, CSV, batch_rows=1)
    sequence.begin(None)
    stream = sequence._current().cursor._stream  # type: ignore[attr-defined]
    stream.write(b"90210\n")
    stream.seek(4)
    position = step(None, sequence.read(0), CSV)
    assert position.text_columns == ()
    assert read_all(sequence_of({"0.csv": b"zip\n90210\n02134\n1\n"}, CSV), position)[0] == [
        b'{"zip":"02134"}',
        b'{"zip":1}',
    ]


def test_a_batch_ends_at_the_byte_limit_whatever_files_it_is_made_of() -> None:
    """A transaction must fit the client's queue."""
    sequence = sequence_of(_json([1] * 9), batch_rows=100, batch_bytes=20)
    sequence.begin(None)
    assert len(sequence.read(0).outputs) == 3


def test_records_too_old_for_the_topic_are_refused_in_every_file() -> None:
    """Kafka deletes records with old times some minutes after it has taken them."""
    options = LoadOptions(format="jsonl", timestamp="t")
    sequence = sequence_of({"a.jsonl": b'{"t":50}\n', "b.jsonl": b'{"t":9}\n'}, options, oldest_ms=10)
    with pytest.raises(InputError, match=r"b\.jsonl, line 1: its timestamp 9 ms, .* is older than topic"):
        read_all(sequence)


def test_finished_files_are_told_of_as_they_are_checked() -> None:
    """Hashing a hundred gigabytes takes minutes, in which people wonder."""
    files = _json([2, 2, 2])
    _, position = read_all(sequence_of(files))
    sequence, seen = sequence_of(files), []
    sequence.on_check = lambda number, count: seen.append((number, count))
    sequence.begin(position)
    assert seen == [(1, 2), (2, 2)]
    assert sequence.consumed() == sum(len(files[name]) for name in list(files)[:2])


def test_a_position_of_one_file_says_nothing_about_its_name() -> None:
    """A file that was moved or renamed is the same file: its content is compared."""
    files = {"a.jsonl": b'{"n":1}\n'}
    _, position = read_all(sequence_of(files))
    sequence = sequence_of({"b.jsonl": files["a.jsonl"]})
    assert sequence.begin(position)
    check_prefix(position, sequence._current().cursor.mark())


def test_a_file_that_grows_while_it_is_read_is_not_left_behind(tmp_path: Path) -> None:
    """What its writer still adds would never be loaded; the next run begins with it."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(b'{"n": 0}\n{"n": 1}\n')
    second.write_bytes(b'{"n": 3}\n')
    sequence = _on_disk(first, second)
    sequence.begin(None)
    stretch = sequence.read(0)
    position = step(None, stretch)
    assert stretch.end.mark.line == 1
    with first.open("ab") as more:
        more.write(b'{"n": 2}\n')
    while stretch.error is None:
        stretch = sequence.read(0)
        if stretch.outputs:
            position = step(position, stretch)
    assert "was written to while it was read" in stretch.error.message
    assert position.finished_files.count == 0
    sequence.close()
    sequence = _on_disk(first, second)
    left, _ = read_all(sequence, position)
    assert left == [b'{"n": %d}' % n for n in range(position.line, 4)]
    sequence.close()


def _on_disk(*paths: Path) -> FileSequence:
    return FileSequence(
        find_files(list(map(str, paths))), Reading("t", OPTIONS, "error", RowLimits(batch_rows=1))
    )


def test_a_packed_file_that_was_cut_off_continues_when_it_is_whole(tmp_path: Path) -> None:
    """A download that broke off is begun again, and the load is not."""
    path = tmp_path / "rows.jsonl.zst"
    lines = b"".join(b'{"n": %d}\n' % n for n in random.Random(5).sample(range(10**9), 20_000))
    packed = zstandard.ZstdCompressor().compress(lines)
    path.write_bytes(packed[: len(packed) // 2])
    sequence = FileSequence(
        find_files([str(path)]), Reading("t", OPTIONS, "error", RowLimits(batch_rows=50_000))
    )
    sequence.begin(None)
    stretch = sequence.read(0)
    assert stretch.error is not None
    assert (
        f"rows.jsonl.zst, line {len(stretch.outputs) + 1}: the rest of the file cannot be read"
        in stretch.error.message
    )
    assert "with the complete file" in str(stretch.error.hint)
    sequence.close()
    path.write_bytes(packed)
    sequence = FileSequence(find_files([str(path)]), Reading("t", OPTIONS, "error", RowLimits()))
    values, _ = read_all(sequence, step(None, stretch))
    assert [output.value for output in stretch.outputs] + values == lines.splitlines()
    sequence.close()


def test_only_the_first_file_must_have_the_field_of_the_key() -> None:
    """A later file may have rows without a key only, which the policy accepts."""
    options = LoadOptions(format="jsonl", key="k")
    files = {"0.jsonl": b'{"k":"A"}\n', "1.jsonl": b'{"n":1}\n'}
    values, _ = read_all(sequence_of(files, options, missing_key="null"))
    assert values == [b'{"k":"A"}', b'{"n":1}']

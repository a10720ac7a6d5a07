"""What a load remembers of the files that it has finished."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ops.loading.finished_files import NO_FINISHED_FILES, FinishedFiles, altered, misplaced
from pipeline.ops.loading.formats.lines import ReadPosition


def _mark(content: str) -> ReadPosition:
    return ReadPosition(len(content), 1, blake2b(content.encode()).hexdigest())


def _passed(files: list[tuple[str, str]]) -> FinishedFiles:
    finished_files = NO_FINISHED_FILES
    for name, content in files:
        finished_files = finished_files.after(name, _mark(content))
        assert finished_files.fault() is None
    return finished_files


def _check(finished_files: FinishedFiles, files: list[tuple[str, str]]) -> str | None:
    """What a later run says about these files."""
    names = [name for name, _ in files]
    walked = NO_FINISHED_FILES
    for name, content in files[: finished_files.count]:
        walked = walked.after(name, _mark(content))
        said = altered(finished_files, walked, names, "bytes")
        if said:
            return said
    return None if walked.chain == finished_files.chain else "fewer files"


_FILES = st.lists(st.tuples(st.text("abc", max_size=2), st.text("xy", max_size=3)), min_size=1, max_size=90)


@given(_FILES, st.data())
def test_every_list_that_begins_otherwise_is_noticed(
    files: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A file that changed, moved or went away has rows that are loaded and others that never would be."""
    finished_files = _passed(files)
    assert _check(finished_files, [*files, ("more", "x")]) is None
    changed = data.draw(
        st.permutations(files) | st.sampled_from([[*files[:i], *files[i + 1 :]] for i in range(3)])
    )
    if changed[: len(files)] != files:
        assert _check(finished_files, changed) is not None


@given(st.integers(1, 5_000))
def test_what_is_remembered_of_any_number_of_files_is_small(count: int) -> None:
    """It is written with every transaction."""
    finished_files = _passed([(f"part-{number:06}.parquet", "content") for number in range(count)])
    assert len(msgspec.json.encode(finished_files)) < 5_000
    assert finished_files.waypoints[-1].number == finished_files.count == count


def test_the_file_that_changed_is_named() -> None:
    """Of thirty files, which one; of thousands, among which."""
    files = [(f"{number}.csv", "same") for number in range(1, 31)]
    changed = [*files[:6], ("7.csv", "longer than that"), *files[7:]]
    assert _check(_passed(files), changed) == (
        "7.csv, file 7 of the list, has changed since it was loaded: it had 4 bytes, and has 16 now"
    )
    other = [*files[:6], ("7.csv", "emas"), *files[7:]]
    assert "7.csv, file 7 of the list, has changed since it was loaded: it has the same size" in str(
        _check(_passed(files), other)
    )
    many = [(f"{number}.csv", "same") for number in range(1, 1001)]
    changed = [*many[:299], ("300.csv", "x"), *many[300:]]
    assert _check(_passed(many), changed) == (
        "one of the files 289 to 320 of the list, 289.csv to 320.csv, has changed, moved or is missing since it was"
        " loaded"
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "c", "d"], None),
        (["a", "b", "c"], None),
        (["b", "a", "c"], "a was file 1 of the list, and is now file 2"),
        (["b", "c"], "a was file 1 of the list, and is missing; file 1 is now b"),
        (["a", "new", "b", "c"], "b was file 2 of the list, and is now file 3"),
        (["a", "b"], "c was file 3 of the list, and is missing; the list now has 2"),
        (["a", "b", "d"], "c was file 3 of the list, and is missing; file 3 is now d"),
    ],
)
def test_a_list_is_compared_by_its_names_before_its_files_are_read(
    names: list[str], said: str | None
) -> None:
    """A terabyte need not be hashed to say that the first file is missing."""
    assert misplaced(_passed([("a", "x"), ("b", "y")]), "c", names) == said


def test_what_cannot_have_been_remembered_is_told() -> None:
    """A position is checked when it is written and when it is read."""
    good = _passed([("a", "x"), ("b", "y")])
    for wrong in (
        msgspec.structs.replace(good, count=3),
        msgspec.structs.replace(good, count=-1),
        msgspec.structs.replace(good, chain=""),
        msgspec.structs.replace(good, chain="other"),
        msgspec.structs.replace(good, waypoints=good.waypoints[::-1]),
        msgspec.structs.replace(good, waypoints=()),
    ):
        assert wrong.fault() is not None

"""Which files a load is made of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ops.loading.files import InputFile, find_files, one_format


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}\n")


@pytest.mark.usefixtures("here")
def test_files_keep_the_order_they_are_named_in_and_those_of_a_folder_that_of_their_paths() -> None:
    """The order is part of the load: it must not depend on the file system."""
    _write("z.jsonl", "day/b.jsonl", "day/a.jsonl.gz", "day/1/c.jsonl", "day/_SUCCESS", "day/.hidden/x.jsonl")
    found = find_files(["z.jsonl", "day"])
    assert [file.path for file in found] == ["z.jsonl", "day/1/c.jsonl", "day/a.jsonl.gz", "day/b.jsonl"]
    assert found[2] == InputFile("day/a.jsonl.gz", "a.jsonl", 3)


@pytest.mark.usefixtures("here")
def test_a_file_named_twice_is_refused_by_whatever_name() -> None:
    """Its rows would be loaded twice."""
    _write("a.csv")
    Path("b.csv").symlink_to("a.csv")
    with pytest.raises(InputError, match=r"a\.csv is given twice"):
        find_files(["a.csv", "a.csv"])
    with pytest.raises(InputError, match=r"b\.csv is the same file as a\.csv"):
        find_files(["a.csv", "b.csv"])
    with pytest.raises(InputError, match=r"a\.csv is given twice"):
        find_files(["a.csv", "."])


@pytest.mark.usefixtures("here")
def test_what_cannot_be_read_is_told_before_anything_is_loaded() -> None:
    """The ten thousandth file may be the one that is missing."""
    _write("a.csv", "folder/_only")
    os.mkfifo("pipe.csv")
    with pytest.raises(InputError, match=r"cannot read b\.csv: No such file"):
        find_files(["a.csv", "b.csv"])
    with pytest.raises(InputError, match="folder folder has no file"):
        find_files(["folder"])
    with pytest.raises(InputError, match="standard input cannot be combined"):
        find_files(["a.csv", "-"])
    with pytest.raises(InputError, match="cannot be combined with other files"):
        find_files(["a.csv", "pipe.csv"])
    with pytest.raises(InputError, match="is not UTF-8"):
        find_files([os.fsdecode(b"\xff.csv")])
    assert find_files(["pipe.csv"])[0].size is None
    assert find_files(["-"])[0].shown == "standard input"


@pytest.mark.usefixtures("here")
def test_a_load_has_one_format() -> None:
    """Its options, and its records, are of one kind."""
    _write("a.csv", "b.jsonl", "c.csv.gz", "d.txt")
    assert one_format(find_files(["a.csv", "c.csv.gz"]), None) == "csv"
    assert one_format(find_files(["a.csv", "d.txt"]), "csv") == "csv"
    assert one_format(find_files(["d.txt"]), None) is None
    with pytest.raises(InputError, match=r"a\.csv is csv and b\.jsonl is jsonl"):
        one_format(find_files(["a.csv", "b.jsonl"]), None)
    with pytest.raises(InputError, match=r"d\.txt does not show its format"):
        one_format(find_files(["a.csv", "d.txt"]), None)

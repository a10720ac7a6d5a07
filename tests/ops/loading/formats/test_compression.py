"""What a load reads: packed or not, named so or not, whole or damaged."""

from __future__ import annotations

import builtins
import gzip
import io
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import zstandard

from pipeline.errors import ConfigError, InputError
from pipeline.ops.loading.formats.compression import logical_name, open_file
from pipeline.ops.loading.formats.readers import file_format

TEXT = b"".join(b'{"n":%d}\n' % n for n in range(200_000))


def _read(path: Path) -> bytes:
    opened = open_file(str(path))
    try:
        return opened.stream.read()
    finally:
        opened.close()


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _file(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", [gzip.compress, _zstd])
@pytest.mark.parametrize("suffix", ["gz", "zst", "jsonl"])
def test_first_bytes_tell_how_a_file_is_packed(tmp_path: Path, pack: Any, suffix: str) -> None:
    """Names lie; and what gzip and zstd begin with is no text."""
    assert _read(_file(tmp_path, f"rows.{suffix}", pack(TEXT))) == TEXT


@pytest.mark.parametrize("pack", [gzip.compress, _zstd])
def test_files_of_many_members_are_read_to_their_end(tmp_path: Path, pack: Any) -> None:
    """Parallel packers, and logs appended to, write a member after the other."""
    cuts = [0, 1, 1_000, 70_000, 70_000, len(TEXT)]
    data = b"".join(pack(TEXT[a:b]) for a, b in pairwise(cuts))
    assert _read(_file(tmp_path, "rows.jsonl", data)) == TEXT


def test_zstd_frames_without_content_are_skipped(tmp_path: Path) -> None:
    """A parallel packer writes one first."""
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    assert _read(_file(tmp_path, "rows.jsonl.zst", skipped + _zstd(TEXT))) == TEXT


@pytest.mark.parametrize("pack", [gzip.compress, _zstd])
def test_a_truncated_file_is_never_read_as_a_complete_one(tmp_path: Path, pack: Any) -> None:
    """Half of a download must not pass for an hour with half of the events."""
    random_text = random.Random(3).randbytes(100_000).hex().encode()
    packed = pack(random_text)
    for keep in (10, len(packed) // 2, len(packed) - 1):
        with pytest.raises((EOFError, OSError)) as refusal:
            _read(_file(tmp_path, "rows.jsonl", packed[:keep]))
        assert "end" in str(refusal.value) or "truncated" in str(refusal.value)


def test_a_damaged_zstd_file_says_where(tmp_path: Path) -> None:
    """Repair tools need the position in the compressed file."""
    packed = bytearray(_zstd(TEXT) + _zstd(TEXT))
    packed[len(packed) // 2 : len(packed) // 2 + 4] = b"\0\0\0\0"
    with pytest.raises(OSError, match=r"damaged after compressed byte [\d,]+"):
        _read(_file(tmp_path, "rows.jsonl.zst", bytes(packed)))


@pytest.mark.parametrize("suffix", ["gz", "zst", "zip"])
def test_a_name_that_says_packed_over_bytes_that_are_not_is_refused(tmp_path: Path, suffix: str) -> None:
    """The file is damaged, or was unpacked already: a person knows which."""
    with pytest.raises(InputError, match="does not begin with the bytes of a"):
        open_file(str(_file(tmp_path, f"rows.csv.{suffix}", b"a,b\n")))


def test_the_one_file_in_an_archive_is_read(tmp_path: Path) -> None:
    """Open data comes so."""
    with ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("rows.csv", "a\n")
    assert _read(tmp_path / "data.zip") == b"a\n"
    assert file_format(str(tmp_path / "data.zip")) == "csv"
    with ZipFile(tmp_path / "data.zip", "a") as archive:
        archive.writestr("more.csv", "b\n")
    with pytest.raises(InputError, match="contains 2 files"):
        file_format(str(tmp_path / "data.zip"))
    with pytest.raises(InputError, match="contains 2 files"):
        open_file(str(tmp_path / "data.zip"))


def test_standard_input_may_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`curl ... | pipeline produce` needs no gunzip between."""

    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(gzip.compress(TEXT)))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert open_file("-").stream.read() == TEXT


def test_a_file_that_is_written_to_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """A load that went on to the next file would never see the rest."""
    path = _file(tmp_path, "rows.jsonl", b"1\n")
    opened = open_file(str(path))
    opened.check_unchanged()
    assert opened.stream.read() == b"1\n"
    with path.open("ab") as more:
        more.write(b"2\n")
    with pytest.raises(InputError, match="was written to while it was read"):
        opened.check_unchanged()
    assert opened.consumed() == 2
    opened.close()


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is needed has another name than the module that is missing."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "zstandard":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "pipeline.ops.loading.formats.zstd", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="extra `zstd`") as refusal:
        open_file(str(_file(tmp_path, "rows.jsonl.zst", _zstd(b"{}\n"))))
    assert "pip install 'zstandard<1,>=0.23'" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "form", "logical"),
    [
        ("a/rows.csv", "csv", "rows.csv"),
        ("rows.CSV.GZ", "csv", "rows.CSV"),
        ("rows.ndjson.zst", "jsonl", "rows.ndjson"),
        ("rows.parquet", "parquet", "rows.parquet"),
        ("rows.txt", None, "rows.txt"),
        ("rows.gz", None, "rows"),
    ],
)
def test_names_tell_the_format_below_what_they_are_packed_as(
    name: str, form: str | None, logical: str
) -> None:
    """And the name that a list knows a file by stays when it is packed later."""
    assert (file_format(name), logical_name(name)) == (form, logical)

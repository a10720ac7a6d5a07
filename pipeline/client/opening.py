"""Opens what a load reads: a file, standard input, or the one file inside a .zip or .gz. Raises InputError."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile

from pipeline.errors import InputError

__all__ = ["STANDARD_INPUT", "file_format", "open_bytes", "unpacked_bytes"]

STANDARD_INPUT = "-"
_BUFFER_BYTES = 1024 * 1024
_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def open_bytes(file: str) -> BinaryIO:
    """The bytes of `file`, unpacked, buffered so that reading line by line is fast."""
    if file == STANDARD_INPUT:
        return sys.stdin.buffer
    path = Path(file)
    try:
        if path.suffix == ".zip":
            return _open_zip(path)
        if path.suffix == ".gz":
            return cast("BinaryIO", io.BufferedReader(gzip.open(path), _BUFFER_BYTES))
        return path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _open_zip(path: Path) -> BinaryIO:
    try:
        archive = ZipFile(path)
        members = [info for info in archive.infolist() if not info.is_dir()]
        if len(members) != 1:
            raise InputError(
                f"{path} holds {len(members)} files; only an archive of exactly one can be read",
                hint=f"unpack it, or pipe it: unzip -p {path} MEMBER | pipeline produce TOPIC - --name NAME",
            )
        return cast("BinaryIO", io.BufferedReader(archive.open(members[0]), _BUFFER_BYTES))
    except (BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def file_format(file: str) -> str | None:
    """`csv` or `jsonl` by the name of the file, or of what is packed in it; None when it does not say."""
    path = Path(file)
    if path.suffix in {".zip", ".gz"}:
        inner = Path(path.stem).suffix
        if not inner and path.suffix == ".zip":
            inner = _zipped_suffix(path)
        return _FORMATS.get(inner.lower())
    return _FORMATS.get(path.suffix.lower())


def _zipped_suffix(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
    except (BadZipFile, OSError):
        return ""
    return Path(members[0]).suffix if len(members) == 1 else ""


def unpacked_bytes(file: str) -> int | None:
    """How many bytes `open_bytes` will give, for a progress bar; None when that is not known beforehand."""
    path = Path(file)
    try:
        if file == STANDARD_INPUT or path.suffix == ".gz":
            return None
        if path.suffix == ".zip":
            with ZipFile(path) as archive:
                return sum(info.file_size for info in archive.infolist())
        return path.stat().st_size
    except (BadZipFile, OSError):
        return None

"""Opens what a load reads: a file or standard input, packed as .gz, .zst, or the one file inside a .zip.

What a file is packed as is told by its first bytes, not by its name: gzip and zstd begin with bytes that no UTF-8 text
begins with. A name that says "packed" over bytes that are not is refused: the file is damaged, or unpacked already.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from pipeline.errors import ConfigError, InputError
from pipeline.extras import install_hint

__all__ = ["STANDARD_INPUT", "Opened", "file_format", "logical_name", "open_file", "unreadable"]

STANDARD_INPUT = "-"
_BUFFER_BYTES = 1024 * 1024
_FORMATS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED = {".gz": "gzip", ".zst": "zstd", ".zip": "zip"}
_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_ZSTD_SKIPPED = b"\x2a\x4d\x18"  # behind one byte: a frame that holds no content, as pzstd writes it first


class Opened:
    """An open file: `stream` gives its bytes unpacked, buffered so that reading line by line is fast."""

    def __init__(self, name: str, stream: BinaryIO, raw: BinaryIO | None) -> None:
        self.name = name
        self.stream = stream
        self._raw = raw
        self._began = None if raw is None else _identity(raw)

    def consumed(self) -> int:
        """How many bytes of the file, as it lies on the disk, have been read; 0 where that cannot be known."""
        try:
            return 0 if self._raw is None else self._raw.tell()
        except (OSError, ValueError):
            return 0

    def check_unchanged(self) -> None:
        """Raises InputError when the file has grown or was written to since it was opened."""
        if self._raw is not None and _identity(self._raw) != self._began:
            raise InputError(
                f"{self.name} was written to while it was read, and the load would continue with the next file",
                hint="run the same command again when nothing writes to it any more; it goes on where it was",
            )

    def close(self) -> None:
        """Close it; standard input stays open."""
        if self._raw is not None:
            self.stream.close()
            self._raw.close()


def open_file(file: str, *, unpack: bool = True) -> Opened:
    """Open `file`, unpacking unless told not to.

    Raises InputError when it cannot be read, ConfigError when an extra is missing.
    """
    if file == STANDARD_INPUT:
        stdin = cast("io.BufferedReader", sys.stdin.buffer)
        return Opened("standard input", _unpacked(stdin, None) if unpack else stdin, None)
    try:
        raw = cast("io.BufferedReader", Path(file).open("rb", buffering=_BUFFER_BYTES))  # noqa: SIM115 - `Opened` closes it
    except OSError as error:
        raise unreadable(file, error) from error
    try:
        return Opened(file, _unpacked(raw, Path(file)) if unpack else raw, raw)
    except BaseException:
        raw.close()
        raise


def unreadable(file: str, error: OSError | ValueError) -> InputError:
    """The error for a file that the operating system cannot open or read."""
    return InputError(
        f"cannot read {file}: {getattr(error, 'strerror', None) or error}",
        hint="check the path, and that you have the permission to read the file",
    )


def _identity(raw: BinaryIO) -> tuple[int, int]:
    found = os.fstat(raw.fileno())
    return found.st_size, found.st_mtime_ns


def _unpacked(raw: io.BufferedReader, path: Path | None) -> BinaryIO:
    try:
        head = raw.peek(len(_ZSTD))[: len(_ZSTD)]
    except OSError as error:
        raise unreadable(str(path or "standard input"), error) from error
    packing = _packing(head)
    claimed = _PACKED.get(path.suffix.lower()) if path is not None else None
    if claimed and packing is None and head:
        raise InputError(
            f"{path} does not begin as a {claimed} file does",
            hint="it is damaged, or unpacked already: then rename it",
        )
    if packing == "zip":
        return _open_zip(raw, path)
    if packing == "gzip":
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES))
    if packing == "zstd":
        return _open_zstd(raw)
    return raw


def _packing(head: bytes) -> str | None:
    if head.startswith(_GZIP):
        return "gzip"
    if head == _ZSTD or (head[1:] == _ZSTD_SKIPPED and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "zip" if head in {_ZIP, _EMPTY_ZIP} else None


def _open_zstd(raw: BinaryIO) -> BinaryIO:
    try:
        from pipeline.ops.loading.formats.zstd import open_zstd  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        raise ConfigError("reading zstd needs the extra `zstd`", hint=install_hint("zstd")) from error
    return open_zstd(raw, _BUFFER_BYTES)


def _open_zip(raw: BinaryIO, path: Path | None) -> BinaryIO:
    if path is None:
        raise InputError("a .zip cannot be read from standard input: its directory is at its end")
    try:
        archive = ZipFile(raw)
        return cast("BinaryIO", io.BufferedReader(archive.open(_only_member(archive, path)), _BUFFER_BYTES))
    except (BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"cannot read {path}: {error}",
            hint="the archive is damaged or encrypted: unpack it, and load the file that was in it",
        ) from error


def _only_member(archive: ZipFile, path: Path) -> ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) != 1:
        raise InputError(
            f"{path} holds {len(members)} files; only an archive of exactly one can be read",
            hint=f"unpack it, or pipe it: unzip -p {path} MEMBER | pipeline produce TOPIC - --name NAME",
        )
    return members[0]


def logical_name(file: str) -> str:
    """The file's name, by which a list of files knows it: without its folder and without what it is packed as."""
    path = Path(file)
    return path.stem if path.suffix.lower() in _PACKED else path.name


def file_format(file: str) -> str | None:
    """`csv`, `jsonl` or `parquet` by the name of the file, or of what is packed in it; None when it does not say.

    Raises InputError for an archive of several files.
    """
    path = Path(file)
    if path.suffix.lower() in _PACKED:
        inner = Path(path.stem).suffix
        if not inner and path.suffix.lower() == ".zip":
            inner = _zipped_suffix(path)
        return _FORMATS.get(inner.lower())
    return _FORMATS.get(path.suffix.lower())


def _zipped_suffix(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            return Path(_only_member(archive, path).filename).suffix
    except (BadZipFile, OSError):
        return ""

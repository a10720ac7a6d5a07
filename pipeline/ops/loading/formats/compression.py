"""Opens the inputs of a load: a file or standard input, plain, .gz, .zst, or a .zip with one file.

The first bytes of a file decide how it is decompressed, not its name: no UTF-8 text begins with the bytes of gzip or
zstd. A file whose name has the suffix of a compressed one, but not its first bytes, is refused: it is damaged, or
already decompressed.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, InputError
from pipeline.installation import install_hint

__all__ = ["STANDARD_INPUT", "Opened", "logical_name", "open_file", "uncompressed_suffix", "unreadable"]

STANDARD_INPUT = "-"
_BUFFER_BYTES = 1024 * 1024
_PACKED = {".gz": "gzip", ".zst": "zstd", ".zip": "zip"}
_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_ZSTD_SKIPPED = b"\x2a\x4d\x18"  # after one byte: the skippable frame that pzstd writes first


class Opened:
    """An open file. `stream`: its decompressed bytes, buffered so that reading lines is fast."""

    def __init__(self, name: str, stream: BinaryIO, raw: BinaryIO | None) -> None:
        self.name = name
        self.stream = stream
        self._raw = raw
        self._began = None if raw is None else _identity(raw)

    def consumed(self) -> int:
        """How many bytes of the file on disk have been read; 0 if that is unknown."""
        try:
            return 0 if self._raw is None else self._raw.tell()
        except (OSError, ValueError):
            return 0

    def check_unchanged(self) -> None:
        """Raise InputError if the file was written to since it was opened."""
        if self._raw is not None and _identity(self._raw) != self._began:
            raise InputError(
                f"{self.name} was written to while it was read, so the load cannot continue with the next file",
                hint="when no program writes to it any more, run the same command again: the load continues",
            )

    def close(self) -> None:
        """Close it; standard input stays open."""
        if self._raw is not None:
            self.stream.close()
            self._raw.close()


def open_file(file: str, *, unpack: bool = True) -> Opened:
    """Open a file. `unpack`: decompress it.

    Raises InputError if it cannot be read, and ConfigError if an extra is not installed.
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
            f"{path} does not begin with the bytes of a {claimed} file",
            hint="if it is already decompressed, rename it; otherwise it is damaged",
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
        raise InputError(
            "a .zip file cannot be read from standard input: its directory is at its end",
            hint="give the file, or decompress it first: unzip -p FILE | pipeline produce TOPIC - --name NAME",
        )
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
            f"{path} contains {counted(len(members), 'file')}; only an archive with exactly one file can be read",
            hint=f"unpack it, or pipe it: unzip -p {path} MEMBER | pipeline produce TOPIC - --name NAME",
        )
    return members[0]


def logical_name(file: str) -> str:
    """The name of a file in a list of files: without its folder and without the suffix of the compression."""
    path = Path(file)
    return path.stem if path.suffix.lower() in _PACKED else path.name


def uncompressed_suffix(file: str) -> str:
    """The suffix of the file, or of the one that is compressed in it, in lower case; `""` if it has none.

    Raises InputError for an archive with several files.
    """
    path = Path(file)
    if path.suffix.lower() in _PACKED:
        inner = Path(path.stem).suffix
        if not inner and path.suffix.lower() == ".zip":
            inner = _zipped_suffix(path)
        return inner.lower()
    return path.suffix.lower()


def _zipped_suffix(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            return Path(_only_member(archive, path).filename).suffix
    except (BadZipFile, OSError):
        return ""

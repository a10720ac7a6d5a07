"""Reads .zst files, of one frame or many. Uses `zstandard`, which the extra `zstd` installs."""

from __future__ import annotations

import io
from typing import BinaryIO

import zstandard

__all__ = ["open_zstd"]

# Compressed bytes. Small enough that the decompressed bytes fit in memory, whatever the content is.
_CHUNK_BYTES = 16 * 1024


def open_zstd(raw: BinaryIO, buffer_bytes: int) -> BinaryIO:
    """The decompressed bytes. Reading raises EOFError for a truncated file, and OSError for a damaged one."""
    return io.BufferedReader(_Frames(raw), buffer_bytes)


class _Frames(io.RawIOBase):
    """All frames of a file, one after the other.

    The stream reader of the library treats the end of the file as the end of a frame, so a truncated file would look
    complete. This class uses one decompressor for each frame instead.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._read = 0
        self._packed = b""
        self._unpacked = memoryview(b"")
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._unpacked and self._more():
            self._unpacked = memoryview(self._unpack())
        size = min(len(buffer), len(self._unpacked))
        buffer[:size] = self._unpacked[:size]
        self._unpacked = self._unpacked[size:]
        return size

    def _more(self) -> bool:
        """Whether there are bytes to decompress."""
        if not self._packed:
            self._packed = self._raw.read(_CHUNK_BYTES)
            self._read += len(self._packed)
        if not self._packed and self._frame is not None:
            raise EOFError(
                f"it is truncated: its last zstd frame is not complete at compressed byte {self._read:,}"
            )
        return bool(self._packed)

    def _unpack(self) -> bytes:
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            unpacked = self._frame.decompress(self._packed)
        except zstandard.ZstdError as error:
            at = self._read - len(self._packed)
            raise OSError(f"damaged after compressed byte {at:,}: {error}") from error
        self._packed = b""
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = None
        return unpacked

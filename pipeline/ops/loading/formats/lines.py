"""Reads a stream line by line, and counts and hashes the lines that were taken.

Owns the position in the current file of a load: the byte offset, the line number and the hash of all bytes before them.
Lines that were read but not taken (`take`) do not count, so a position never skips a record that was not delivered.
"""

from __future__ import annotations

import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile

from pipeline.errors import InputError

__all__ = ["MAX_LINE_BYTES", "Lines", "ReadPosition", "new_hash"]

MAX_LINE_BYTES = 64 * 1024 * 1024
_READ_ERRORS = (OSError, EOFError, BadZipFile, zlib.error)
_BLOCK_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class ReadPosition(NamedTuple):
    """A position in a file: the bytes and lines before it, and the hash of these bytes."""

    offset: int
    line: int
    digest: str


def new_hash() -> blake2b:
    """A new object for the hash of a file or its beginning."""
    return blake2b(digest_size=16)


class Lines:
    """The lines of one stream. `pending`: those that were read and not taken yet."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.pending: list[bytes] = []
        self._stream = stream
        self._ahead: deque[bytes] = deque()
        self._hash = new_hash()
        self._offset = 0
        self._line = 0
        self._last = b""

    @property
    def line(self) -> int:
        """The number of lines taken."""
        return self._line

    @property
    def ends_line(self) -> bool:
        """Whether the last byte taken ends a line. If not, more bytes would change the last line."""
        return self._last in {b"", b"\n"}

    def peek(self, size: int) -> list[bytes]:
        """The next lines, about `size` bytes, without consuming them."""
        seen = sum(map(len, self._ahead))
        while seen < size:
            line = self._read(self._stream.readline, MAX_LINE_BYTES)
            if not line:
                break
            self._ahead.append(line)
            seen += len(line)
        return list(self._ahead)

    def __iter__(self) -> Iterator[bytes]:
        """The remaining lines with their line ends, without a byte order mark.

        Raises InputError without the line, because the caller knows where a record starts.
        """
        pending, ahead = self.pending, self._ahead
        more = partial(self._stream.readline, MAX_LINE_BYTES)
        try:
            while line := ahead.popleft() if ahead else more():
                first = not pending and not self._line
                pending.append(line)
                if len(line) >= MAX_LINE_BYTES:
                    raise InputError(f"the line is longer than {MAX_LINE_BYTES:,} bytes")
                yield line.removeprefix(_BOM) if first else line
        except _READ_ERRORS as error:
            raise InputError(
                f"the rest of the file cannot be read: {error}",
                hint="run the same command again with the complete file",
            ) from error

    def take(self, count: int) -> ReadPosition:
        """Count and hash the first `count` pending lines, and return the position after them."""
        chunk = b"".join(self.pending[:count])
        del self.pending[:count]
        self._hash.update(chunk)
        self._offset += len(chunk)
        self._last = chunk[-1:] or self._last
        self._line += count
        return self.mark()

    def mark(self) -> ReadPosition:
        """The position after the last line taken."""
        return ReadPosition(self._offset, self._line, self._hash.hexdigest())

    def skip_to(self, offset: int, line: int) -> ReadPosition:
        """Take all bytes up to `offset`, the end of line `line`, without parsing them.

        Returns the position reached, which is smaller if the stream is shorter. Call it before iterating further.
        """
        self.take(len(self.pending))
        while self._ahead and self._offset < offset:
            next_line, room = self._ahead.popleft(), offset - self._offset
            if len(next_line) > room:
                self._ahead.appendleft(next_line[room:])
            self.pending.append(next_line[:room])
            self.take(1)
        while self._offset < offset:
            block = self._read(self._stream.read, min(_BLOCK_BYTES, offset - self._offset))
            if not block:
                break
            self._hash.update(block)
            self._offset += len(block)
            self._last = block[-1:]
        self._line = line
        return self.mark()

    def skip_to_end(self) -> ReadPosition:
        """Take all remaining bytes, without counting their lines."""
        return self.skip_to(sys.maxsize, self._line)

    def at_end(self) -> bool:
        """Whether all lines are taken."""
        return not self.pending and not self.peek(1)

    def share(self) -> None:
        """None: the length of the stream is unknown."""

    def _read(self, call: Callable[[int], bytes], size: int) -> bytes:
        try:
            return call(size)
        except _READ_ERRORS as error:
            raise InputError(f"{self.name} cannot be read: {error}") from error

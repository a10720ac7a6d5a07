"""The bytes of a load: read line by line, counted and hashed as they are taken for good.

Owns the one truth about how far a load has come in its file: byte offset, line number and the hash of all
bytes before it. Lines that were read but not taken (`take`) count for nothing, so a position never passes a
record that has not been handed on.
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
    """How far a load has come: bytes and lines taken, and the hash of those bytes."""

    offset: int
    line: int
    digest: str


def new_hash() -> blake2b:
    """The hash of a load's prefix."""
    return blake2b(digest_size=16)


class Lines:
    """The lines of one stream, with those that were read and not yet taken kept in `pending`."""

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
        """Lines taken so far."""
        return self._line

    @property
    def ends_line(self) -> bool:
        """Whether what was taken ends with a line end: if not, more bytes would change its last line."""
        return self._last in {b"", b"\n"}

    def peek(self, size: int) -> list[bytes]:
        """The next lines, about `size` bytes of them, without reading past them."""
        seen = sum(map(len, self._ahead))
        while seen < size:
            line = self._read(self._stream.readline, MAX_LINE_BYTES)
            if not line:
                break
            self._ahead.append(line)
            seen += len(line)
        return list(self._ahead)

    def __iter__(self) -> Iterator[bytes]:
        """The remaining lines with their ends, without a byte order mark.

        Raises InputError with no place in it: the caller knows where a record began.
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
                f"cannot be read any further: {error}", hint="run the same command again with the whole file"
            ) from error

    def take(self, count: int) -> ReadPosition:
        """Count and hash the first `count` pending lines; the position after them."""
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
        """Take everything up to byte `offset`, which ends line `line`, without parsing it.

        The mark says how far it came: less when the stream is shorter. Call it before iterating any further.
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
        """Take all that is left, without counting its lines."""
        return self.skip_to(sys.maxsize, self._line)

    def at_end(self) -> bool:
        """Whether nothing follows what was taken."""
        return not self.pending and not self.peek(1)

    def share(self) -> None:
        """None: the length of the stream is not known."""

    def _read(self, call: Callable[[int], bytes], size: int) -> bytes:
        try:
            return call(size)
        except _READ_ERRORS as error:
            raise InputError(f"{self.name} cannot be read: {error}") from error

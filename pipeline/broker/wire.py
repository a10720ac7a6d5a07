"""The parts of Kafka's wire format that a proxy needs, and one request for the metadata of a node: `view_of`.

A frame is a request or an answer without its length prefix. The format is that of the protocol guide
(kafka.apache.org/protocol). In newer ("flexible") versions of each API, lengths are varints and structures end with
tagged fields. Only two answers contain addresses that our clients use: Metadata and FindCoordinator.

A node that lists all nodes of its cluster has registered with the controller and serves clients. An open port alone
does not show this.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = [
    "FIND_COORDINATOR",
    "METADATA",
    "Address",
    "Reader",
    "Request",
    "View",
    "read_frame",
    "readdressed",
    "send_frame",
    "view_of",
]

Address = tuple[str, int]
# The start and the end of an address in an answer, and the address.
Place = tuple[int, int, Address]

METADATA, FIND_COORDINATOR = 3, 10
_FLEXIBLE_FROM = {METADATA: 9, FIND_COORDINATOR: 3}

_VERSION, _CORRELATION = 2, 77
_MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the client sent it."""

    api: int
    version: int
    correlation: int
    frame: bytes

    @classmethod
    def of(cls, frame: bytes) -> Request:
        """Read the header."""
        api, version, correlation = struct.unpack_from(">hhi", frame)
        return cls(api, version, correlation, frame)


def read_frame(connection: socket.socket, most: int | None = None) -> bytes | None:
    """The next frame; None at the end of the connection, and for a frame of more than `most` bytes."""
    prefix = _read(connection, 4)
    if prefix is None:
        return None
    size = int.from_bytes(prefix)
    return None if most is not None and size > most else _read(connection, size)


def send_frame(connection: socket.socket, frame: bytes) -> None:
    """Send one frame."""
    connection.sendall(struct.pack(">i", len(frame)) + frame)


def readdressed(request: Request, answer: bytes, address_of: Callable[[Address], Address]) -> bytes:
    """The answer with every broker's address replaced by that of `address_of`. Its hosts have at most 126 bytes."""
    if request.api == METADATA:
        find = _metadata_places
    elif request.api == FIND_COORDINATOR:
        find = _coordinator_places
    else:
        return answer
    reader = Reader(answer, flexible=request.version >= _FLEXIBLE_FROM[request.api])
    reader.header()
    parts, at = [], 0
    for start, end, address in find(reader, request.version):
        if address[1] > 0:  # without a coordinator there is no address
            parts += [answer[at:start], reader.encoded(address_of(address))]
            at = end
    return b"".join([*parts, answer[at:]])


class Reader:
    """Reads the fields of an answer one after the other."""

    def __init__(self, frame: bytes, *, flexible: bool) -> None:
        self._frame = frame
        self._flexible = flexible
        self._at = 0

    def skip(self, size: int) -> None:
        self._at += size

    def header(self) -> None:
        self.skip(4)  # correlation id
        self.tags()

    def int16(self) -> int:
        return int(self._number(">h", 2))

    def int32(self) -> int:
        return int(self._number(">i", 4))

    def string(self) -> str:
        """A string; null is returned as empty."""
        size = self._varint() - 1 if self._flexible else self.int16()
        self._at += max(size, 0)
        return self._frame[self._at - max(size, 0) : self._at].decode()

    def count(self) -> int:
        """The length of an array, which follows."""
        return self._varint() - 1 if self._flexible else self.int32()

    def tags(self) -> None:
        if self._flexible:
            for _ in range(self._varint()):
                self._varint()
                self.skip(self._varint())

    def place(self) -> Place:
        """A host and a port."""
        start = self._at
        address = self.string(), self.int32()
        return start, self._at, address

    def encoded(self, address: Address) -> bytes:
        """A host and a port in the encoding of this frame.

        Only for short hosts, whose length is one byte of a varint.
        """
        host = address[0].encode()
        size = bytes([len(host) + 1]) if self._flexible else struct.pack(">h", len(host))
        return size + host + struct.pack(">i", address[1])

    def _number(self, form: str, size: int) -> int:
        self._at += size
        (value,) = struct.unpack_from(form, self._frame, self._at - size)
        return int(value)

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._frame[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def _metadata_places(reader: Reader, version: int) -> Iterator[Place]:
    if version >= 3:
        reader.int32()  # throttle time
    for _ in range(reader.count()):
        reader.int32()  # node id
        yield reader.place()
        if version >= 1:
            reader.string()  # rack
        reader.tags()


def _coordinator_places(reader: Reader, version: int) -> Iterator[Place]:
    if version >= 1:
        reader.int32()  # throttle time
    if version >= 4:
        for _ in range(reader.count()):
            reader.string()  # key
            reader.int32()  # node id
            yield reader.place()
            reader.int16()  # error
            reader.string()  # its text
            reader.tags()
        return
    reader.int16()  # error
    if version >= 1:
        reader.string()  # its text
    reader.int32()  # node id
    yield reader.place()


def _read(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


@dataclass(frozen=True, slots=True)
class View:
    """The metadata of a cluster according to one node."""

    cluster_id: str
    node_ids: frozenset[int]
    controller_id: int


def view_of(port: int, *, host: str = "127.0.0.1", timeout_s: float = 1.0) -> View | None:
    """The view of the node at `host:port`; None if nothing there answers like Kafka."""
    client = b"pipeline-probe"
    header = struct.pack(">hhih", METADATA, _VERSION, _CORRELATION, len(client)) + client
    no_topics = struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            send_frame(connection, header + no_topics)
            answer = read_frame(connection, _MAX_ANSWER)
        return None if answer is None else _parse(answer)
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _parse(answer: bytes) -> View | None:
    """None for an answer to another request."""
    reader = Reader(answer, flexible=False)
    if reader.int32() != _CORRELATION:
        return None
    ids = set()
    for _ in range(reader.count()):
        ids.add(reader.int32())
        reader.place()
        reader.string()  # rack
    return View(reader.string(), frozenset(ids), reader.int32())

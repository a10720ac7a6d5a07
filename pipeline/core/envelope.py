"""The envelope of durable formats: a version and a checksum around a body. Pure.

A format that is kept in Kafka, in a state directory or in a checkpoint store is laid out in one of three ways:

    BinaryEnvelope  magic | version u8 | fields | checksum | body
                    chunks of journal entries, applied positions, manifests, replays; kept checkpoints without a
                    checksum, since the entry that holds them has one
    JsonEnvelope    {"version": 1, "checksum": "...", NAME: body}, with text fields before and after the checksum
                    positions of loads, marks of replays, numbers of open records
    LineEnvelope    a checksum in hexadecimal digits, a line feed, and the body
                    suspects of crashes

The checksum covers the exact bytes of the body. `seal` makes the bytes; `open` returns the body once version and
checksum are verified, and raises EnvelopeError otherwise. Each format translates that into the error its readers
react to. Each format validates its own body.

Notes of workers (`core/notes.py`) are hints, and have a version but no checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.errors import CorruptStateError, InvariantError

__all__ = [
    "BLAKE2B",
    "CRC32",
    "NO_CHECKSUM",
    "BinaryEnvelope",
    "Checksum",
    "EnvelopeError",
    "Fault",
    "JsonEnvelope",
    "LineEnvelope",
    "SealedJson",
    "json_checksum",
    "unknown_version",
]


class Fault(Enum):
    """Why an envelope cannot be opened."""

    FOREIGN = "it is not of this format"
    VERSION = "its version is unknown to this release"
    CHECKSUM = "its checksum is wrong"


class EnvelopeError(Exception):
    """An envelope that cannot be opened. `version`: what it says, where it says one.

    Callers translate it; it never reaches a user.
    """

    def __init__(self, fault: Fault, version: int | None = None) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.version = version


def unknown_version(subject: str, error: EnvelopeError, known: int) -> CorruptStateError:
    """The error for a record of another release. `subject`: what was written. `known`: the version of this release."""
    return CorruptStateError(
        f"{subject} was written in version {error.version}; this release knows version {known}",
        hint="use the release that wrote it, or a newer one",
    )


class Checksum(NamedTuple):
    """`of(covered, body)` returns `size` bytes over both."""

    size: int
    of: Callable[[bytes, bytes], bytes]


CRC32 = Checksum(4, lambda covered, body: zlib.crc32(body, zlib.crc32(covered)).to_bytes(4, "big"))
BLAKE2B = Checksum(16, lambda covered, body: blake2b(covered + body, digest_size=16).digest())
NO_CHECKSUM = Checksum(0, lambda _covered, _body: b"")


def _none(_fields: bytes) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class BinaryEnvelope:
    """magic | version u8 | fields | checksum | body.

    `fields`: how many bytes a format has between version and checksum. `covered`: those of them that the checksum
    covers beside the body, in the order in which it does.
    """

    version: int
    checksum: Checksum = CRC32
    magic: bytes = b""
    fields: int = 0
    covered: Callable[[bytes], bytes] = _none

    @property
    def header_size(self) -> int:
        """Bytes before the body."""
        return len(self.magic) + 1 + self.fields + self.checksum.size

    def seal(self, body: bytes, fields: bytes = b"") -> bytes:
        """The durable bytes. Raises InvariantError for fields of another size."""
        if len(fields) != self.fields:
            raise InvariantError(f"an envelope of {self.fields} bytes of fields gets {len(fields)}")
        check = self.checksum.of(self.covered(fields), body)
        return b"".join((self.magic, bytes((self.version,)), fields, check, body))

    def fields_of(self, data: bytes) -> bytes:
        """The fields of what is at least as long as a header, unverified."""
        start = len(self.magic) + 1
        return data[start : start + self.fields]

    def open(self, data: bytes) -> bytes:
        """The body. Raises EnvelopeError."""
        start = len(self.magic)
        if len(data) < self.header_size or data[:start] != self.magic:
            raise EnvelopeError(Fault.FOREIGN)
        if data[start] != self.version:
            raise EnvelopeError(Fault.VERSION, data[start])
        body = data[self.header_size :]
        fields = self.fields_of(data)
        if data[start + 1 + self.fields : self.header_size] != self.checksum.of(self.covered(fields), body):
            raise EnvelopeError(Fault.CHECKSUM, self.version)
        return body


class SealedJson(NamedTuple):
    """A JSON envelope that was read and is not verified yet."""

    version: int
    checksum: str
    body: bytes
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JsonEnvelope:
    """A JSON object of version, checksum and body, for people to read. `body`: the name of the body's field.

    `version` is written; `older` ones are read, too. `before`, `after`: names of text fields before and after the
    checksum, which the checksum does not cover; those of `after` are optional.
    """

    body: str
    version: int
    older: tuple[int, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def seal(self, body: bytes, fields: Mapping[str, str] | None = None) -> bytes:
        """The durable bytes around a JSON `body`; empty optional fields are left out."""
        given = fields or {}
        whole: dict[str, object] = {"version": self.version}
        whole |= {name: given[name] for name in self.before}
        whole |= {"checksum": json_checksum(body), self.body: msgspec.Raw(body)}
        whole |= {name: given[name] for name in self.after if given.get(name)}
        return msgspec.json.encode(whole)

    def read(self, data: bytes) -> SealedJson:
        """The parts, unverified. Raises EnvelopeError for what is not of this format."""
        try:
            found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            texts = {name: found[name] for name in self.before}
            texts |= {name: found[name] for name in self.after if name in found}
            return SealedJson(
                msgspec.json.decode(found["version"], type=int),
                msgspec.json.decode(found["checksum"], type=str),
                bytes(found[self.body]),
                {name: msgspec.json.decode(text, type=str) for name, text in texts.items()},
            )
        except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EnvelopeError(Fault.FOREIGN) from error

    def verify(self, sealed: SealedJson) -> bytes:
        """The body. Raises EnvelopeError."""
        if sealed.version != self.version and sealed.version not in self.older:
            raise EnvelopeError(Fault.VERSION, sealed.version)
        if sealed.checksum != json_checksum(sealed.body):
            raise EnvelopeError(Fault.CHECKSUM, sealed.version)
        return sealed.body

    def open(self, data: bytes) -> bytes:
        """The body. Raises EnvelopeError."""
        return self.verify(self.read(data))


def json_checksum(body: bytes) -> str:
    """The checksum of a JSON envelope: 16 hexadecimal digits."""
    return blake2b(body, digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class LineEnvelope:
    """A checksum in eight hexadecimal digits, a line feed, and the body, which holds its version itself."""

    def seal(self, body: bytes) -> bytes:
        """The durable bytes."""
        return b"%08x\n%s" % (zlib.crc32(body), body)

    def open(self, data: bytes) -> bytes:
        """The body. Raises EnvelopeError."""
        checksum, separator, body = data.partition(b"\n")
        if not separator:
            raise EnvelopeError(Fault.FOREIGN)
        if checksum != b"%08x" % zlib.crc32(body):
            raise EnvelopeError(Fault.CHECKSUM)
        return body

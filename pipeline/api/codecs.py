"""Encodes values: `resolve_value` finds the codec of a topic or table once, from the declared type.

A value is checked against its declared type when it is set or sent. msgspec checks types only when it decodes, so the
value is encoded and the result is decoded. A table keeps the decoded value, so a handler sees the same value as after a
restart.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_origin

import msgspec

from pipeline.api.custom_codecs import Codec, MessageCodec, check_codec, giving_bytes
from pipeline.api.type_schema import PLAIN, is_flat, is_immutable, may_hide_nan, schema_of, show
from pipeline.core.headers import shielded
from pipeline.core.records import Record
from pipeline.errors import ConfigError

__all__ = ["CodecName", "ValueCodec", "resolve_value"]

V = TypeVar("V")

CodecName = Literal["json", "msgpack", "raw"]


@dataclass(frozen=True, slots=True)
class ValueCodec(Generic[V]):
    """A resolved codec.

    Attributes:
        admit: Checks and encodes a value. Returns the bytes and the decoded value. Raises TypeError, ValueError or
            OverflowError, as do the other functions.
        encode: Like `admit`, but returns only the bytes.
        decode: Decodes bytes.
        allows_none: Whether None and a null value (a tombstone) are converted into each other.
        immutable: Whether decoded values cannot change, so that they may be shared.
        schema: A description of codec and type. Equal descriptions can read each other's bytes.
        decode_message: Decodes bytes with their message, for a `MessageCodec`. `decode` then always raises TypeError.
    """

    admit: Callable[[V], tuple[bytes | None, V]]
    encode: Callable[[V], bytes | None]
    decode: Callable[[bytes | None], V]
    allows_none: bool
    immutable: bool
    schema: str
    decode_message: Callable[[bytes | None, Record], V] | None = None

    def read(self, record: Record) -> V:
        """The value of a record. Raises like `decode`. The hot path calls `decode` directly instead."""
        if self.decode_message is not None:
            return self.decode_message(record.value(), record)
        return self.decode(record.value())

    def read_all(self, records: Iterable[Record]) -> list[V]:
        """The values of records. Raises like `decode`."""
        with_message, decode = self.decode_message, self.decode
        if with_message is not None:
            return [with_message(record.value(), record) for record in records]
        return [decode(record.value()) for record in records]


def resolve_value(
    declared: Any, codec: Codec[Any] | MessageCodec[Any] | CodecName | None, where: str, *, tombstones: bool
) -> ValueCodec[Any]:
    """The codec of a declared type.

    Args:
        declared: The type of the values.
        codec: A codec or its name. None: `raw` for bytes, `json` for all other types.
        where: The topic or table, for messages.
        tombstones: Whether None is a null record value (topics) instead of an encoded null (tables).

    Raises:
        ConfigError: The type or the codec cannot be used.
    """
    allows_none, checked = _split_none(declared) if tombstones else (False, declared)
    name = codec if codec is not None else ("raw" if checked is bytes else "json")
    if not isinstance(name, str):
        plain = _own(name, checked, where, of_topic=tombstones)
    else:
        try:
            plain = _shared(checked, name)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
        except TypeError:  # the type is not hashable
            plain = _build(*_named(name, checked), checked, name)
    return _with_none(plain) if allows_none else plain


@functools.cache
def _shared(declared: Any, name: str) -> ValueCodec[Any]:
    """One codec per type, so that a value that is set and sent is checked and encoded once."""
    return _build(*_named(name, declared), declared, name)


def _build(
    encode: Callable[[Any], bytes], decode: Callable[[Any], Any], declared: Any, name: str
) -> ValueCodec[Any]:
    immutable = is_immutable(declared)
    classes = _classes(declared)
    only = next(iter(classes)) if classes is not None and len(classes) == 1 else None
    if only is not None and is_flat(declared):
        admit = _checked_once(encode, decode, only)
    else:
        admit = _checked(encode, decode, classes)
    return ValueCodec(
        admit, lambda value: admit(value)[0], decode, False, immutable, f"{name}:{schema_of(declared)}"
    )


def _own(codec: Any, declared: Any, where: str, *, of_topic: bool) -> ValueCodec[Any]:
    """The codec that a user has defined. Raises ConfigError if it is not a codec, or a table's that takes a message."""
    name = type(codec).__qualname__
    wants_message = check_codec(codec, where)
    encode = giving_bytes(codec)
    if not wants_message:
        return _build(encode, codec.decode, declared, name)
    if not of_topic:
        raise ConfigError(
            f"{where}: {name}.decode requires a message, which a row of a table does not have",
            hint="give the table a codec whose decode takes only the bytes",
        )
    decode, classes = codec.decode, _classes(declared)

    def admit(value: Any) -> tuple[bytes, Any]:
        _check_class(value, classes)
        return encode(value), value

    def decode_message(data: bytes | None, message: Record) -> Any:
        if data is None:
            raise TypeError("a null value where the type does not allow None")
        return decode(data, shielded(message))

    def alone(_data: bytes | None) -> Any:
        raise TypeError(f"{name}.decode requires a message in addition to the bytes")

    schema = f"{name}:{schema_of(declared)}"
    return ValueCodec(
        admit,
        lambda value: admit(value)[0],
        alone,
        False,
        is_immutable(declared),
        schema,
        decode_message,
    )


def _with_none(plain: ValueCodec[Any]) -> ValueCodec[Any]:
    admit, decode, of_message = plain.admit, plain.decode, plain.decode_message

    def admit_or_none(value: Any) -> tuple[bytes | None, Any]:
        return (None, None) if value is None else admit(value)

    return ValueCodec(
        admit_or_none,
        lambda value: None if value is None else admit(value)[0],
        lambda data: None if data is None else decode(data),
        True,
        plain.immutable,
        plain.schema,
        None
        if of_message is None
        else lambda data, message: None if data is None else of_message(data, message),
    )


def _named(name: str, declared: Any) -> tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    if name == "raw":
        if declared is not bytes:
            raise ConfigError(f"the codec 'raw' requires the type bytes, not {show(declared)}")
        return bytes, _raw_decode
    try:
        if name == "json":
            encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(declared).decode
            return (_refusing_nan(encode) if may_hide_nan(declared) else encode), decode
        if name == "msgpack":
            return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(declared).decode
    except TypeError as error:
        hint = (
            "give each Struct of a union its tag: class A(msgspec.Struct, tag=True)"
            if _is_union(declared)
            else None
        )
        raise ConfigError(f"the type {show(declared)} cannot be encoded: {error}", hint=hint) from error
    raise ConfigError(
        f"unknown codec {name!r}", hint="use 'json', 'msgpack', 'raw' or an object with encode and decode"
    )


def _raw_decode(data: Any) -> bytes:
    if type(data) is not bytes:
        raise TypeError("a null value where the type does not allow None")
    return data


def _refusing_nan(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """For types that allow both float and None: msgspec encodes NaN and infinity as null, which decodes as None."""

    def checked(value: Any) -> bytes:
        data = encode(value)
        if b"null" in data and _has_nan(msgspec.to_builtins(value)):
            raise ValueError("JSON has no NaN and no infinity; use the codec 'msgpack'")
        return data

    return checked


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_nan, value)) or any(map(_has_nan, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_has_nan, value))


def _checked(
    encode: Callable[[Any], bytes], decode: Callable[[Any], Any], classes: frozenset[type] | None
) -> Callable[[Any], tuple[bytes, Any]]:
    def admit(value: Any) -> tuple[bytes, Any]:
        _check_class(value, classes)
        data = encode(value)
        return data, decode(data)

    return admit


def _check_class(value: Any, classes: frozenset[type] | None) -> None:
    if classes is not None and type(value) not in classes:
        raise TypeError(f"expected {_names(classes)}, got {type(value).__name__}")


def _checked_once(
    encode: Callable[[Any], bytes], decode: Callable[[Any], Any], only: type
) -> Callable[[Any], tuple[bytes, Any]]:
    """Like `_checked`, for flat values of one class. Remembers the last object: many values are set and then sent."""
    # One tuple, replaced at once, so that a worker on another thread never sees a value with the bytes of another.
    last: tuple[Any, tuple[bytes, Any]] = (encode, (b"", None))

    def admit(value: Any) -> tuple[bytes, Any]:
        nonlocal last
        known, admitted = last
        if value is known:
            return admitted
        if type(value) is not only:
            raise TypeError(f"expected {only.__name__}, got {type(value).__name__}")
        data = encode(value)
        admitted = data, decode(data)
        last = value, admitted
        return admitted

    return admit


def _split_none(declared: Any) -> tuple[bool, Any]:
    """Whether the type allows None, and the type without it."""
    arguments = getattr(declared, "__args__", None)
    if arguments is None or type(None) not in arguments or not _is_union(declared):
        return declared is None or declared is type(None), declared
    rest = tuple(a for a in arguments if a is not type(None))
    result = rest[0]
    for other in rest[1:]:
        result |= other
    return True, result


def _is_union(declared: Any) -> bool:
    return get_origin(declared) in {Union, UnionType}


def _classes(declared: Any) -> frozenset[type] | None:
    """The exact classes that a value may have; None if only decoding can check the type."""
    members = declared.__args__ if _is_union(declared) else (declared,)
    classes = set()
    for member in members:
        if isinstance(member, type) and (
            member in PLAIN or issubclass(member, msgspec.Struct) or dataclasses.is_dataclass(member)
        ):
            classes.add(member)
            if member is float:
                classes.add(int)  # type checkers accept an int as a float
        elif member is type(None):
            classes.add(type(None))
        else:
            return None
    return frozenset(classes)


def _names(classes: frozenset[type]) -> str:
    return " or ".join(sorted(c.__name__ for c in classes))

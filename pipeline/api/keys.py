"""Encodes keys. Each type has one canonical form, so equal keys have equal bytes, in Kafka and in RocksDB.

| type                    | bytes                                                                   |
|-------------------------|-------------------------------------------------------------------------|
| str                     | UTF-8                                                                   |
| bytes                   | unchanged                                                               |
| int                     | 8 bytes, big-endian, signed: as the `LongSerializer` of the Java client |
| tuple and frozen Struct | a compact JSON array of the fields                                      |

Floats, dicts and lists are refused, because equal values can have different bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import GenericAlias
from typing import Any, Generic, TypeVar

import msgspec

from pipeline.api.type_schema import schema_of, show
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, InputError

__all__ = ["KeyCodec", "parse_key", "resolve_key"]

K = TypeVar("K")

_LONG = struct.Struct(">q")
_PARTS = (msgspec.inspect.StrType, msgspec.inspect.IntType, msgspec.inspect.BoolType)


@dataclass(frozen=True, slots=True)
class KeyCodec(Generic[K]):
    """A resolved key codec.

    `encode` and `decode` raise TypeError or ValueError. `prefix` takes a shorter str or bytes, or a tuple of the first
    fields, and returns the bytes with which every such key begins.
    """

    encode: Callable[[K], bytes | None]
    decode: Callable[[bytes | None], K]
    prefix: Callable[[Any], bytes]
    allows_none: bool
    schema: str


def resolve_key(declared: Any, where: str, *, tombstones: bool) -> KeyCodec[Any]:
    """The codec of a key type. `tombstones`: `| None` in the type allows null keys (topics, not tables)."""
    info = _inspect(declared, where)
    if isinstance(info, msgspec.inspect.NoneType):
        if not tombstones:
            raise _refused(declared, where)
        return KeyCodec(_only_none, lambda _data: None, _no_prefix, True, "none")
    allows_none = False
    if isinstance(info, msgspec.inspect.UnionType):
        rest = [t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)]
        if len(rest) != 1 or len(rest) == len(info.types) or not tombstones:
            raise _refused(declared, where)
        allows_none, info = True, rest[0]
    codec = _codec(info, declared, where)
    encode, decode = codec.encode, codec.decode
    if not tombstones:
        return codec
    if not allows_none:

        def decode_given(data: bytes | None) -> Any:
            if data is None:
                raise TypeError(f"the record has no key; {where} declares key={show(declared)}")
            return decode(data)

        return replace(codec, decode=decode_given)
    return KeyCodec(
        lambda key: None if key is None else encode(key),
        lambda data: None if data is None else decode(data),
        codec.prefix,
        True,
        codec.schema,
    )


def parse_key(codec: KeyCodec[K], text: str) -> K:
    """Decode a key from the command line: the text, a number, or a JSON array of the fields. Raises InputError."""
    data = text.encode()
    if codec.schema == "int":
        try:
            data = _LONG.pack(int(text))
        except (ValueError, struct.error) as error:
            raise InputError(f"{text!r} is not a 64-bit integer, as the keys of the table are") from error
    elif codec.schema not in {"str", "bytes"}:
        try:
            data = msgspec.json.encode(msgspec.json.decode(text))
        except msgspec.DecodeError as error:
            raise InputError(
                f"{text!r} is not a JSON array of the key's fields", hint='as in ["AA","JFK"]'
            ) from error
    try:
        return codec.decode(data)
    except (TypeError, ValueError, msgspec.DecodeError) as error:
        raise InputError(f"{text!r} cannot be a key of this table: {error}") from error


def _codec(info: Any, declared: Any, where: str) -> KeyCodec[Any]:
    i = msgspec.inspect
    if isinstance(info, i.StrType):
        # The unbound C methods check the type: a key that is not a str, or a null, raises TypeError.
        decode_str: Callable[[Any], str] = bytes.decode
        return KeyCodec(str.encode, decode_str, str.encode, False, "str")
    if isinstance(info, i.BytesType):
        return KeyCodec(_bytes, _bytes, _bytes, False, "bytes")
    if isinstance(info, i.IntType):
        return KeyCodec(_encode_int, _decode_int, _no_prefix, False, "int")
    if isinstance(info, i.TupleType) and all(isinstance(t, _PARTS) for t in info.item_types):
        return _array(_tuple_of(info.item_types), tuple, tuple, schema_of(_tuple_of(info.item_types)))
    if (
        isinstance(info, i.StructType)
        and info.cls.__struct_config__.frozen
        and info.cls.__struct_config__.eq
        and all(isinstance(f.type, _PARTS) for f in info.fields)
    ):
        cls = info.cls
        parts = _tuple_of([f.type for f in info.fields])
        return _array(parts, msgspec.structs.astuple, _maker(cls), schema_of(cls), cls)
    raise _refused(declared, where)


def _maker(cls: Any) -> Callable[[Any], Any]:
    """Return a function that creates the Struct from the values of its fields, in order."""
    names = cls.__struct_fields__
    if cls.__match_args__ == names:
        return lambda values: cls(*values)
    return lambda values: cls(**dict(zip(names, values, strict=True)))  # some fields are keyword-only


def _tuple_of(infos: Iterable[Any]) -> Any:
    """The tuple type of inspected parts."""
    return GenericAlias(tuple, tuple(_python(info) for info in infos))


def _python(info: Any) -> type:
    i = msgspec.inspect
    if isinstance(info, i.BoolType):
        return bool
    return int if isinstance(info, i.IntType) else str


def _array(
    parts: Any,
    take: Callable[[Any], tuple[Any, ...]],
    make: Callable[[Any], Any],
    schema: str,
    cls: type = tuple,
) -> KeyCodec[Any]:
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(parts)

    def encode(key: Any) -> bytes:
        if type(key) is not cls:
            raise TypeError(f"expected a key of type {cls.__name__}, got {type(key).__name__}")
        data = encoder.encode(take(key))
        if decoder.decode(data) != take(key):
            raise TypeError(f"the key {key!r} does not keep its value when it is encoded")
        return data

    def decode(data: bytes | None) -> Any:
        if data is None:
            raise TypeError("a null key where the type does not allow None")
        return make(decoder.decode(data))

    def prefix(key: Any) -> bytes:
        values = key if isinstance(key, tuple) else take(key)
        if not values:
            return b"["
        if len(values) > len(parts.__args__):
            raise TypeError(f"a key has {counted(len(parts.__args__), 'field')}, not {len(values)}: {key!r}")
        msgspec.convert(values, GenericAlias(tuple, parts.__args__[: len(values)]))
        whole = len(values) == len(parts.__args__)
        return encoder.encode(values) if whole else encoder.encode(values)[:-1] + b","

    return KeyCodec(encode, decode, prefix, False, schema)


def _encode_int(key: Any) -> bytes:
    # A bool or an IntEnum equals an int and is the same key in a dict, so it has the same bytes here.
    if not isinstance(key, int):
        raise TypeError(f"expected a key of type int, got {type(key).__name__}")
    try:
        return _LONG.pack(key)
    except struct.error as error:
        raise ValueError(f"the key {key} does not fit into 64 bits") from error


def _decode_int(data: bytes | None) -> int:
    if data is None or len(data) != 8:
        raise TypeError("an int key is 8 bytes")
    value: int = _LONG.unpack(data)[0]
    return value


def _bytes(key: Any) -> bytes:
    if type(key) is not bytes:
        raise TypeError(f"expected a key of type bytes, got {'null' if key is None else type(key).__name__}")
    return key


def _only_none(key: Any) -> None:
    if key is not None:
        raise TypeError("the topic is declared without a key")


def _no_prefix(key: Any) -> bytes:
    raise TypeError(f"keys of this type have no prefixes: {key!r}")


def _inspect(declared: Any, where: str) -> Any:
    try:
        return msgspec.inspect.type_info(declared)
    except (TypeError, NotImplementedError) as error:
        raise _refused(declared, where) from error


def _refused(declared: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: {declared} cannot be a key",
        hint="use str, bytes, int, or a tuple or frozen Struct of str, int and bool",
    )

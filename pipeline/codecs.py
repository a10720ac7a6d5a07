"""Values as bytes: one codec per topic or table, resolved once from the declared type.

A value is checked against its declared type when it is set or sent, by encoding it and decoding the result:
msgspec checks types only on decode. What a table keeps is that decoded value, so a handler sees what a
restart would see.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Generic, Literal, Protocol, TypeVar, Union, get_origin

import msgspec

from pipeline.errors import ConfigError

__all__ = ["Codec", "CodecName", "ValueCodec", "is_immutable", "resolve_value", "schema_of"]

V = TypeVar("V")

CodecName = Literal["json", "msgpack", "raw"]

_PLAIN: frozenset[type] = frozenset({int, str, bytes, bool, float})


class Codec(Protocol[V]):
    """What a user may bring instead of a named codec."""

    def encode(self, value: V, /) -> bytes: ...

    def decode(self, data: bytes, /) -> V: ...


@dataclass(frozen=True, slots=True)
class ValueCodec(Generic[V]):
    """A resolved codec.

    `admit` checks and encodes: (bytes, the value as a decode gives it); raises TypeError, ValueError or
    msgspec.ValidationError. `encode` is its first half. `decode` raises the same. With `allows_none` all three
    map None to a null value (a tombstone) and back. `immutable`: decoded values may be shared.
    """

    admit: Callable[[V], tuple[bytes | None, V]]
    encode: Callable[[V], bytes | None]
    decode: Callable[[bytes | None], V]
    allows_none: bool
    immutable: bool
    schema: str


def resolve_value(
    declared: Any, codec: Codec[Any] | CodecName | None, where: str, *, tombstones: bool
) -> ValueCodec[Any]:
    """The codec of a declared type. Raises ConfigError when the type or the codec cannot be used.

    Without a codec, bytes are taken raw and everything else as JSON. `tombstones`: a None value is a null
    record value (topics), not an encoded null (tables).
    """
    name = codec if codec is not None else ("raw" if declared is bytes else "json")
    allows_none, checked = _split_none(declared) if tombstones else (False, declared)
    if not isinstance(name, str):
        plain = _build(name.encode, name.decode, checked, type(name).__qualname__)
    else:
        try:
            plain = _shared(checked, name)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
        except TypeError:  # a type that cannot be hashed
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
    if immutable and only is not None:
        admit = _checked_once(encode, decode, only)
    else:
        admit = _checked(encode, decode, classes)
    return ValueCodec(
        admit, lambda value: admit(value)[0], decode, False, immutable, f"{name}:{schema_of(declared)}"
    )


def _with_none(plain: ValueCodec[Any]) -> ValueCodec[Any]:
    admit, decode = plain.admit, plain.decode

    def admit_or_none(value: Any) -> tuple[bytes | None, Any]:
        return (None, None) if value is None else admit(value)

    return ValueCodec(
        admit_or_none,
        lambda value: None if value is None else admit(value)[0],
        lambda data: None if data is None else decode(data),
        True,
        plain.immutable,
        plain.schema,
    )


def _named(name: str, declared: Any) -> tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    if name == "raw":
        if declared is not bytes:
            raise ConfigError(f"the codec 'raw' carries bytes, not {_show(declared)}")
        return bytes, _raw_decode
    try:
        if name == "json":
            return msgspec.json.Encoder().encode, msgspec.json.Decoder(declared).decode
        if name == "msgpack":
            return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(declared).decode
    except TypeError as error:
        raise ConfigError(f"the type {_show(declared)} cannot be encoded: {error}") from error
    raise ConfigError(f"unknown codec {name!r}", hint="use 'json', 'msgpack', 'raw' or an object of yours")


def _raw_decode(data: Any) -> bytes:
    if type(data) is not bytes:
        raise TypeError("a null value where the type does not allow None")
    return data


def _checked(
    encode: Callable[[Any], bytes], decode: Callable[[Any], Any], classes: frozenset[type] | None
) -> Callable[[Any], tuple[bytes, Any]]:
    def admit(value: Any) -> tuple[bytes, Any]:
        if classes is not None and type(value) not in classes:
            raise TypeError(f"expected {_names(classes)}, got {type(value).__name__}")
        data = encode(value)
        return data, decode(data)

    return admit


def _checked_once(
    encode: Callable[[Any], bytes], decode: Callable[[Any], Any], only: type
) -> Callable[[Any], tuple[bytes, Any]]:
    """For immutable values of one class: the object admitted last is known, and often set and sent at once."""
    # One tuple, so that workers on several threads of a process see a value with its own bytes.
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
    """The exact classes a value may have, where the declared type says so; None where only a decode can tell."""
    members = declared.__args__ if _is_union(declared) else (declared,)
    classes = set()
    for member in members:
        if isinstance(member, type) and (
            member in _PLAIN or issubclass(member, msgspec.Struct) or dataclasses.is_dataclass(member)
        ):
            classes.add(member)
        elif member is type(None):
            classes.add(type(None))
        else:
            return None
    return frozenset(classes)


def is_immutable(declared: Any) -> bool:
    """Whether no value of this type can change: decided recursively, so a frozen Struct with a list is not."""
    try:
        return _immutable(msgspec.inspect.type_info(declared), set())
    except (TypeError, NotImplementedError):
        return False


_SCALARS = (
    msgspec.inspect.NoneType,
    msgspec.inspect.BoolType,
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.StrType,
    msgspec.inspect.BytesType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.TimeType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
)


def _immutable(info: Any, seen: set[type]) -> bool:  # noqa: PLR0911 - one return per kind of type
    i = msgspec.inspect
    if isinstance(info, _SCALARS):
        return True
    if isinstance(info, i.UnionType):
        return all(_immutable(t, seen) for t in info.types)
    if isinstance(info, i.TupleType):
        return all(_immutable(t, seen) for t in info.item_types)
    if isinstance(info, i.VarTupleType | i.FrozenSetType):
        return _immutable(info.item_type, seen)
    if isinstance(info, i.Metadata):
        return _immutable(info.type, seen)
    if isinstance(info, i.StructType | i.DataclassType):
        cls: Any = info.cls
        if cls in seen:
            return True
        frozen = (
            cls.__struct_config__.frozen
            if isinstance(info, i.StructType)
            else cls.__dataclass_params__.frozen
        )
        return bool(frozen) and all(_immutable(f.type, seen | {cls}) for f in info.fields)
    return False


def schema_of(declared: Any) -> str:
    """A canonical description of a type: equal descriptions read each other's bytes."""
    try:
        return _schema(msgspec.inspect.type_info(declared), ())
    except (TypeError, NotImplementedError):
        return _show(declared)


def _schema(info: Any, outer: tuple[type, ...]) -> str:  # noqa: PLR0911 - one return per kind of type
    i = msgspec.inspect
    name: str = type(info).__name__.removesuffix("Type").lower()
    if isinstance(info, i.StructType | i.DataclassType):
        if info.cls in outer:
            return f"^{len(outer) - outer.index(info.cls)}"
        inner = (*outer, info.cls)
        fields = ",".join(
            f"{f.encode_name}:{_schema(f.type, inner)}{'' if f.required else '='}" for f in info.fields
        )
        tag = f"#{info.tag}" if isinstance(info, i.StructType) and info.tag is not None else ""
        shape = "[]" if isinstance(info, i.StructType) and info.array_like else "{}"
        return f"{shape[0]}{tag}{fields}{shape[1]}"
    if isinstance(info, i.UnionType):
        return "|".join(sorted(_schema(t, outer) for t in info.types))
    if isinstance(info, i.TupleType):
        return f"tuple({','.join(_schema(t, outer) for t in info.item_types)})"
    if isinstance(info, i.CollectionType):
        return f"{name}({_schema(info.item_type, outer)})"
    if isinstance(info, i.DictType):
        return f"dict({_schema(info.key_type, outer)},{_schema(info.value_type, outer)})"
    if isinstance(info, i.Metadata):
        return _schema(info.type, outer)
    if isinstance(info, i.EnumType):
        return f"enum({','.join(sorted(str(m.value) for m in _members(info.cls)))})"
    if isinstance(info, i.LiteralType):
        return f"literal({','.join(sorted(map(str, info.values)))})"
    return name


def _members(cls: type[enum.Enum]) -> list[enum.Enum]:
    return list(cls)


def _names(classes: frozenset[type]) -> str:
    return " or ".join(sorted(c.__name__ for c in classes))


def _show(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)

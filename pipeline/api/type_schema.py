"""Facts about a declared type: whether its values can change, and a canonical description for comparing types."""

from __future__ import annotations

import enum
from typing import Any, get_origin

import msgspec

__all__ = ["PLAIN", "is_flat", "is_immutable", "may_hide_nan", "schema_of", "show"]

# Classes whose values are scalars.
PLAIN: frozenset[type] = frozenset({int, str, bytes, bool, float})


def is_immutable(declared: Any) -> bool:
    """Whether no value of this type can change. The fields count, too: a frozen Struct with a list can change."""
    try:
        return _immutable(msgspec.inspect.type_info(declared), set())
    except (TypeError, NotImplementedError):
        return False


def is_flat(declared: Any) -> bool:
    """Whether a value of the right class cannot change: a scalar, or a frozen Struct or dataclass of scalars.

    Python does not check the fields of an instance. A field of type tuple, frozenset, bytes or Struct may hold a list,
    bytearray or dict, which has the same encoding and can change. So types with such fields are not flat.
    """
    if declared in PLAIN:
        return True
    try:
        info = msgspec.inspect.type_info(declared)
    except (TypeError, NotImplementedError):
        return False
    if not isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType):
        return False
    kinds = [k for f in info.fields for k in getattr(f.type, "types", (f.type,))]
    return _frozen(info) and all(
        isinstance(k, _SCALARS) and not isinstance(k, msgspec.inspect.BytesType) for k in kinds
    )


def may_hide_nan(declared: Any) -> bool:
    """Whether an encoded null may have been a NaN: the type contains Any, or a union of float and None."""
    try:
        return _hides_nan(msgspec.inspect.type_info(declared), set())
    except (TypeError, NotImplementedError):
        return True


def _hides_nan(info: Any, seen: set[Any]) -> bool:
    i = msgspec.inspect
    if isinstance(info, i.AnyType | i.CustomType | i.RawType):
        return True
    if isinstance(info, i.UnionType):
        return {i.NoneType, i.FloatType} <= set(map(type, info.types)) or any(
            _hides_nan(t, seen) for t in info.types
        )
    if hasattr(info, "fields"):
        if info.cls in seen:
            return False
        seen.add(info.cls)
        return any(_hides_nan(f.type, seen) for f in info.fields)
    parts = [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    return any(_hides_nan(part, seen) for part in (*parts, *getattr(info, "item_types", ())) if part)


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
        return _frozen(info) and all(_immutable(f.type, seen | {cls}) for f in info.fields)
    return False


def _frozen(info: Any) -> bool:
    cls = get_origin(info.cls) or info.cls
    if isinstance(info, msgspec.inspect.StructType):
        return bool(cls.__struct_config__.frozen)
    parameters = getattr(cls, "__dataclass_params__", None)  # attrs classes do not have it
    return parameters is not None and bool(parameters.frozen)


def schema_of(declared: Any) -> str:
    """A canonical description of a type. If two types have the same description, each reads the bytes of the other."""
    try:
        return _schema(msgspec.inspect.type_info(declared), ())
    except (TypeError, NotImplementedError):
        return show(declared)


def _schema(info: Any, outer: tuple[type, ...]) -> str:  # noqa: PLR0911 - one return per kind of type
    i = msgspec.inspect
    name: str = type(info).__name__.removesuffix("Type").lower()
    if isinstance(info, i.StructType | i.DataclassType | i.TypedDictType | i.NamedTupleType):
        if info.cls in outer:
            return f"^{len(outer) - outer.index(info.cls)}"
        inner = (*outer, info.cls)
        fields = ",".join(f"{f.encode_name}:{_schema(f.type, inner)}{_default(f, info)}" for f in info.fields)
        struct = info if isinstance(info, i.StructType) else None
        tag = f"#{struct.tag_field}={struct.tag};" if struct is not None and struct.tag is not None else ""
        array = isinstance(info, i.NamedTupleType) or (struct is not None and struct.array_like)
        return f"[{tag}{fields}]" if array else f"{{{tag}{fields}}}"
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
        return f"enum({','.join(sorted(repr(m.value) for m in _members(info.cls)))})"
    if isinstance(info, i.LiteralType):
        return f"literal({','.join(sorted(map(repr, info.values)))})"
    return name


def _default(field: Any, info: Any) -> str:
    """`=` for an optional field; with the default, if fields with their default are left out of the bytes."""
    if field.required:
        return ""
    cls = get_origin(info.cls) or info.cls
    if isinstance(info, msgspec.inspect.StructType) and cls.__struct_config__.omit_defaults:
        return f"={field.default!r}" if field.default is not msgspec.NODEFAULT else "=new"
    return "="


def _members(cls: type[enum.Enum]) -> list[enum.Enum]:
    return list(cls)


def show(declared: Any) -> str:
    """The name of a type for messages."""
    return declared.__name__ if isinstance(declared, type) else str(declared)

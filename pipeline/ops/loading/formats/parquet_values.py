"""Converts the values of a Parquet column to JSON. Pure; uses pyarrow's arrays.

| Parquet (Arrow) | JSON |
|---|---|
| bool, integers, text, null | the same; integers of 64 bits are written out in full |
| floats | numbers; NaN is null; the infinities are the texts "Infinity" and "-Infinity" |
| decimals | text, with all their digits: `"12.30"` |
| timestamps | ISO 8601 text, with as many digits as their unit has; with a zone: in UTC, with a Z at the end |
| dates, times of day | ISO 8601 text |
| durations | whole numbers of their unit |
| binary | text, in base64; UUIDs as they are written |
| lists | arrays |
| structs | objects |
| maps | objects, the last of equal keys; with keys that are not text: arrays of `{"key": k, "value": v}` |

No value is rounded or changed: a value without a JSON number becomes text or null.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from pipeline.errors import InputError

__all__ = ["json_values"]

Values = list[Any]


def json_values(array: pa.Array) -> Values:
    """One value, ready for JSON, for each value of the array. Raises InputError for a type without a JSON form."""
    kind = array.type
    for fits, values in _KINDS:
        if fits(kind):
            return values(array)
    raise InputError(f"values of type {kind} cannot be converted to JSON")


def _as_they_are(array: pa.Array) -> Values:
    return cast("Values", array.to_pylist())


def _floats(array: pa.Array) -> Values:
    if types.is_float16(array.type):
        array = array.cast(pa.float32())
    found = _as_they_are(array)
    if pc.any(pc.is_inf(array)).as_py():
        return [str(v).replace("inf", "Infinity") if v is not None and math.isinf(v) else v for v in found]
    return found  # NaN becomes null when it is encoded


def _decimals(array: pa.Array) -> Values:
    return [None if value is None else format(value, "f") for value in array.to_pylist()]


def _timestamps(array: pa.Array) -> Values:
    unit, zone = array.type.unit, array.type.tz
    naive = array.cast(pa.timestamp(unit))  # of one with a zone: the moment in UTC
    text = pc.replace_substring(naive.cast(pa.string()), " ", "T", max_replacements=1)
    return _as_they_are(pc.binary_join_element_wise(text, "Z", "") if zone else text)


def _as_text(array: pa.Array) -> Values:
    return _as_they_are(array.cast(pa.string()))


def _durations(array: pa.Array) -> Values:
    return _as_they_are(array.cast(pa.int64()))


def _binary(array: pa.Array) -> Values:
    return [None if value is None else b64encode(value).decode() for value in array.to_pylist()]


def _lists(array: pa.Array) -> Values:
    inner: Iterator[Any] = iter(json_values(pc.list_flatten(array)))
    sizes = pc.list_value_length(array).to_pylist()
    return [None if size is None else list(islice(inner, size)) for size in sizes]


def _structs(array: pa.Array) -> Values:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise InputError("a struct names a field more than once")
    if not names:
        return [{} if valid else None for valid in array.is_valid().to_pylist()]
    columns = [json_values(field) for field in array.flatten()]
    rows: Values = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if array.null_count:
        return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]
    return rows


def _maps(array: pa.Array) -> Values:
    kind = array.type
    pair = pa.struct([pa.field("key", kind.key_type, nullable=False), pa.field("value", kind.item_type)])
    found = _lists(array.cast(pa.list_(pair)))
    if not _is_text(kind.key_type):
        return found
    return [None if pairs is None else {p["key"]: p["value"] for p in pairs} for pairs in found]


def _dictionaries(array: pa.Array) -> Values:
    return json_values(array.dictionary_decode())


def _extensions(array: pa.Array) -> Values:
    if array.type.extension_name == "arrow.uuid":
        return [None if value is None else str(value) for value in array.to_pylist()]
    return json_values(array.storage)


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or _is_text(kind) or types.is_boolean(kind) or types.is_null(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_extension(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType)


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], Values]], ...] = (
    (_is_extension, _extensions),
    (_is_plain, _as_they_are),
    (types.is_floating, _floats),
    (types.is_decimal, _decimals),
    (types.is_timestamp, _timestamps),
    (types.is_date, _as_text),
    (types.is_time, _as_text),
    (types.is_duration, _durations),
    (_is_binary, _binary),
    (types.is_map, _maps),
    (_is_list, _lists),
    (types.is_struct, _structs),
    (types.is_dictionary, _dictionaries),
)

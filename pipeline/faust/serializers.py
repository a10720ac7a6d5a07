"""Faust's serializers as functions of one argument: `decoder_of` a topic, `decoding` and `encoder_of` of types.

Faust looks up types, models and codecs for each message. Here this is done once. The bytes are those of Faust, so the
same topics and changelogs can be read by both. A schema or a registry that the user has replaced is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.models.base import Model
from faust.serializers.codecs import get_codec
from faust.serializers.codecs import json as json_codec
from faust.serializers.codecs import raw as raw_codec
from faust.serializers.registry import Registry
from faust.serializers.schemas import Schema
from faust.types import ModelT
from mode.utils.compat import want_bytes, want_str

from pipeline.faust.json_bytes import dump_json, load_json

__all__ = [
    "Decoder",
    "Decoding",
    "decoder_of",
    "decoding",
    "encoder_of",
    "plain_schema",
    "preparing",
]

Decoding = Callable[[bytes | None], Any]
Encoding = Callable[[Any], bytes | None]


class Decoder(NamedTuple):
    """How the records of a topic are decoded. `schema`: a user's own, which needs the message; None for the others."""

    key: Decoding
    value: Decoding
    schema: Any = None


def plain_schema(app: Any, schema: Any) -> bool:
    """Whether a schema is Faust's own, and so is the registry of the app."""
    return type(schema) is Schema and type(app.serializers) is Registry


def decoder_of(app: Any, topic: Any) -> Decoder:
    """The decoder of a Faust topic."""
    schema = topic.schema
    registry = app.serializers
    if not plain_schema(app, schema):
        return Decoder(_nothing, _nothing, schema)
    return Decoder(
        decoding(schema.key_type, schema.key_serializer or registry.key_serializer, KeyDecodeError),
        decoding(
            schema.value_type,
            _value_serializer(schema.value_type, schema.value_serializer, registry.value_serializer),
            ValueDecodeError,
            allow_empty=bool(schema.allow_empty),
        ),
    )


def _nothing(data: bytes | None) -> Any:
    return data


def _value_serializer(typ: Any, *choices: Any) -> Any:
    """As Faust's registry chooses it."""
    chosen = next(filter(None, choices), None)
    return "raw" if chosen is None and typ in {str, bytes} else chosen


def decoding(typ: Any, serializer: Any, error: type[Exception], *, allow_empty: bool = False) -> Decoding:
    """A function that decodes bytes as Faust does. `error`: for a null where a model is required."""
    loads = load_json if _is(json_codec, serializer) else get_codec(serializer).loads if serializer else None
    prepare = preparing(typ)
    needed = isinstance(typ, type) and issubclass(typ, ModelT) and not allow_empty

    def decode(data: bytes | None) -> Any:
        if data is None:
            if needed:
                raise error(f"expected {typ.__name__}, and it is null")
            return None
        return prepare(data if loads is None else loads(data))

    def decode_text(data: bytes | None) -> Any:
        return None if data is None else data.decode()

    def decode_json(data: bytes | None) -> Any:
        if data is None:
            return decode(data)
        value = load_json(data)
        return _reconstructed(value) if isinstance(value, dict) else value

    if typ is None and loads is load_json:
        return decode_json
    return decode_text if typ is str and (loads is None or _is(raw_codec, serializer)) else decode


def _is(kind: Any, serializer: Any) -> bool:
    """Whether a serializer is one codec of Faust, and not a chain of several."""
    codec = get_codec(serializer) if serializer else None
    return codec is not None and type(codec) is kind and not codec.children


def preparing(typ: Any) -> Callable[[Any], Any]:
    """From what a codec gives to the declared type, as in Faust's registry."""
    if typ is None:
        return _reconstructed
    if typ is str:
        return want_str
    if typ is bytes:
        return want_bytes
    if typ in {int, float, Decimal}:
        return lambda data: typ(want_str(data))
    return lambda data: typ.from_data(data, preferred_type=typ)


def _reconstructed(data: Any) -> Any:
    """The model that a JSON object names as its own."""
    named = isinstance(data, dict) and Model._blessed_key in data  # noqa: SLF001 - as the registry calls it
    return Model._maybe_reconstruct(data) if named else data  # noqa: SLF001


def encoder_of(typ: Any, serializer: Any, default: Any) -> Encoding:
    """A function that encodes keys or values as Faust's registry does, with its `default` serializer."""
    fallback = _value_serializer(typ, serializer, default)
    codec = get_codec(fallback) if fallback else None
    plain_json = _is(json_codec, fallback)
    dumps = dump_json if plain_json else codec.dumps if codec is not None else None

    def encode(value: Any) -> bytes | None:
        kind = type(value)
        if kind is bytes:
            data: bytes = value
            return data
        if isinstance(value, ModelT):
            chosen = value._options.serializer  # noqa: SLF001 - as the registry reads it
            model_codec = _value_serializer(typ, chosen, serializer, default)
            return value.dumps(serializer=model_codec) if model_codec else want_bytes(value)
        if dumps is None:
            return None if value is None else want_bytes(value)
        return dumps(value)

    def encode_json(value: Any) -> bytes | None:
        kind = type(value)
        return dump_json(value) if kind is str or kind is int else encode(value)

    def encode_text(value: Any) -> bytes | None:
        return value.encode() if type(value) is str else encode(value)

    if plain_json:
        return encode_json
    return encode_text if codec is None or _is(raw_codec, fallback) else encode

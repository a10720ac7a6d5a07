"""Codecs by name, and codecs of the users own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ConfigError
from tests.support.codec_case import Flight, Holder, Loose, Reversed, Trip, table_codec, topic_codec


class Careless:
    """A user's codec that does not give bytes."""

    def encode(self, value: str, /) -> Any:
        return value

    def decode(self, data: Any, /) -> str:
        return str(data)


def test_a_codec_of_the_users_own_is_used() -> None:
    """Avro, Protobuf, encryption: all come in this way."""
    codec = topic_codec(str | None, Reversed())
    assert (codec.encode("abc"), codec.decode(b"cba"), codec.encode(None)) == (b"cba", "abc", None)
    with pytest.raises(TypeError, match="expected str, got int"):
        codec.encode(5)


def test_a_codec_that_does_not_give_bytes_is_refused_at_its_record() -> None:
    """Otherwise the commit fails, later and for all records in it."""
    with pytest.raises(TypeError, match=r"Careless\.encode returned str"):
        topic_codec(str, Careless()).encode("abc")


class Lenient(Reversed):
    """Its second argument is its own, and no message."""

    def decode(self, data: bytes, /, errors: str = "strict") -> str:
        return data.decode(errors=errors)[::-1]


class Greedy(Reversed):
    """Nothing calls a decode like that."""

    def decode(self, data: bytes, message: Any, more: Any, /) -> str:  # type: ignore[override]
        return ""


class Half:
    """It can only encode."""

    def encode(self, value: str, /) -> bytes:
        return b""


def test_a_default_of_a_users_decode_is_not_filled_with_a_message() -> None:
    """What it means is the user's own matter."""
    assert topic_codec(str, Lenient()).decode(b"cba") == "abc"


@pytest.mark.parametrize(
    ("codec", "error", "hint"),
    [
        (Reversed, "topic t: codec is the class Reversed", r"create an object: Reversed\(\)"),
        (Half(), "topic t: the codec .* has no method decode", "it needs encode"),
        (object(), "topic t: the codec .* has no method encode", "use 'json'"),
        (Greedy(), r"topic t: Greedy\.decode\(data.* cannot be called", r"decode\(self, data, message\)"),
    ],
)
def test_what_is_no_codec_is_refused_where_it_is_declared(codec: Any, error: str, hint: str) -> None:
    """At the first record it would look like the record's fault."""
    with pytest.raises(ConfigError, match=error) as caught:
        topic_codec(str, codec)
    assert re.search(hint, caught.value.hint or "")


def test_structs_that_cannot_be_told_apart_are_answered_with_what_tells_them() -> None:
    """The type checker takes the union as it is."""
    with pytest.raises(ConfigError, match="cannot be encoded") as caught:
        topic_codec(Holder | Trip)
    assert "tag=True" in (caught.value.hint or "")


def test_raw_is_for_bytes_only() -> None:
    """Anything else would have to be guessed."""
    assert topic_codec(bytes).schema == topic_codec(bytes, "raw").schema == "raw:bytes"
    with pytest.raises(ConfigError, match=r"topic t: the codec 'raw' requires the type bytes, not str"):
        topic_codec(str, "raw")


def test_an_unknown_codec_is_refused_with_the_known_ones() -> None:
    """At the declaration, not at the first record."""
    with pytest.raises(ConfigError, match=r"table main\.t: unknown codec 'avro'") as caught:
        table_codec(str, "avro")
    assert "'json', 'msgpack', 'raw'" in (caught.value.hint or "")


@pytest.mark.parametrize("declared", [Flight | Loose, Callable[[], None] | Flight])
def test_a_type_that_cannot_be_decoded_is_refused_when_it_is_declared(declared: Any) -> None:
    """Two Structs without tags cannot be told apart in bytes."""
    with pytest.raises(ConfigError, match=r"table main\.t: the type .* cannot be encoded"):
        table_codec(declared)

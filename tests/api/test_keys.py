"""Keys as bytes: one form per key, and never one form for two keys."""

from __future__ import annotations

import struct
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.keys import KeyCodec, parse_key, resolve_key
from pipeline.errors import ConfigError, InputError

UserId = NewType("UserId", int)


class Route(msgspec.Struct, frozen=True):
    origin: str
    number: int
    daily: bool = False


class KeywordRoute(msgspec.Struct, frozen=True, kw_only=True):
    origin: str
    number: int = 0


class Mutable(msgspec.Struct):
    origin: str


class NoEquality(msgspec.Struct, frozen=True, eq=False):
    origin: str


class WithFloat(msgspec.Struct, frozen=True):
    weight: float


class Pair(NamedTuple):
    left: str
    right: str


class Airport(StrEnum):
    JFK = "JFK"


class Terminal(IntEnum):
    ONE = 1


def table_key(declared: Any) -> KeyCodec[Any]:
    return resolve_key(declared, "table main.t", tombstones=False)


def topic_key(declared: Any) -> KeyCodec[Any]:
    return resolve_key(declared, "topic t", tombstones=True)


longs = st.integers(-(2**63), 2**63 - 1)
texts = st.text() | st.sampled_from(['"', "\\", '","', "é", "é", "\x00", "a,b", "[", "\U0001d4b3"])
KEYS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "str": (str, texts),
    "bytes": (bytes, st.binary()),
    "int": (int, longs),
    "new type": (UserId, longs),
    "tuple": (tuple[str, str], st.tuples(texts, texts)),
    "mixed tuple": (tuple[str, int, bool], st.tuples(texts, longs, st.booleans())),
    "struct": (Route, st.builds(Route, texts, longs, st.booleans())),
    "keyword struct": (KeywordRoute, st.builds(KeywordRoute, origin=texts, number=longs)),
}
kinds = pytest.mark.parametrize("kind", KEYS)


@kinds
@given(st.data())
def test_a_key_comes_back_equal(kind: str, data: st.DataObject) -> None:
    """`items()` and every consumed record turn bytes into keys again."""
    declared, strategy = KEYS[kind]
    codec = table_key(declared)
    key = data.draw(strategy)
    decoded = codec.decode(codec.encode(key))
    assert decoded == key
    assert type(decoded) is type(key)


@kinds
@given(st.data())
def test_two_keys_never_share_bytes(kind: str, data: st.DataObject) -> None:
    """Shared bytes would merge two customers' rows; different bytes of one key would split one customer's."""
    declared, strategy = KEYS[kind]
    codec = table_key(declared)
    one, other = data.draw(strategy), data.draw(strategy)
    assert (one == other) == (codec.encode(one) == codec.encode(other))


@given(st.lists(texts, min_size=2, max_size=2), st.lists(texts, min_size=2, max_size=2))
def test_fields_of_a_key_are_kept_apart(one: list[str], other: list[str]) -> None:
    """("a", "bc") and ("ab", "c") are two keys, whatever quotes and commas the fields hold."""
    codec = table_key(tuple[str, str])
    assert (one == other) == (codec.encode(tuple(one)) == codec.encode(tuple(other)))


@given(longs, longs)
def test_bytes_of_positive_ints_keep_their_order(one: int, other: int) -> None:
    """`items()` goes by bytes: big-endian keeps 2 before 10; negative numbers come last."""
    codec = table_key(int)
    one, other = abs(one) % 2**63, abs(other) % 2**63
    assert (one < other) == ((codec.encode(one) or b"") < (codec.encode(other) or b""))


def test_bytes_of_keys_are_what_they_were_in_the_first_release() -> None:
    """They are durable, and they decide the partition together with other clients, the Java ones included."""
    assert table_key(str).encode("Zürich") == b"Z\xc3\xbcrich"
    assert table_key(bytes).encode(b"\x00\xff") == b"\x00\xff"
    assert table_key(int).encode(-2) == struct.pack(">q", -2)
    assert table_key(tuple[str, int, bool]).encode(("a", 1, True)) == b'["a",1,true]'
    assert table_key(Route).encode(Route("JFK", 7)) == b'["JFK",7,false]'


REFUSED: list[tuple[Any, Any]] = [
    (str, 5),
    (str, b"a"),
    (str, None),
    (str, "\ud800"),
    (bytes, "a"),
    (bytes, bytearray(b"a")),
    (bytes, None),
    (int, "5"),
    (int, 5.0),
    (int, None),
    (int, 2**63),
    (int, -(2**63) - 1),
    (tuple[str, int], ("a", "1")),
    (tuple[str, int], ("a", True)),
    (tuple[str, int], ("a", 1.0)),
    (tuple[str, bool], ("a", 1)),
    (tuple[str, int], ("a",)),
    (tuple[str, int], ("a", 1, 2)),
    (tuple[str, int], ["a", 1]),
    (tuple[str, str], Pair("a", "b")),
    (tuple[str, str], ("a", None)),
    (Route, ("JFK", 7, False)),
    (Route, Route("JFK", "7")),  # type: ignore[arg-type]
    (Route, Route(5, 7)),  # type: ignore[arg-type]
    (Route, KeywordRoute(origin="JFK")),
    (Route, None),
]


@pytest.mark.parametrize(("declared", "key"), REFUSED, ids=repr)
def test_a_key_of_another_type_is_refused(declared: Any, key: Any) -> None:
    """It would be a row that no handler finds again."""
    with pytest.raises((TypeError, ValueError)):
        table_key(declared).encode(key)


@pytest.mark.parametrize(
    ("declared", "key", "plain"),
    [(str, Airport.JFK, "JFK"), (int, Terminal.ONE, 1), (int, True, 1), (int, False, 0)],
    ids=repr,
)
def test_a_key_that_equals_a_plain_one_has_its_bytes(declared: Any, key: Any, plain: Any) -> None:
    """A dict takes 1 and True for one key, and tables read through dicts: what is cached must not decide."""
    codec = table_key(declared)
    assert codec.encode(key) == codec.encode(plain)


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        (str, b"\xff"),
        (str, None),
        (bytes, None),
        (int, b"12345"),
        (int, b""),
        (int, None),
        (tuple[str, int], b'["a"]'),
        (tuple[str, int], b'["a","1"]'),
        (tuple[str, int], b"junk"),
        (tuple[str, int], None),
        (Route, b'["JFK",7]'),
        (Route, None),
    ],
    ids=repr,
)
def test_bytes_that_are_no_key_are_refused(declared: Any, data: bytes | None) -> None:
    """Other producers write what they like; the record is poison, and the policy decides."""
    with pytest.raises((TypeError, ValueError)):
        topic_key(declared).decode(data)


@pytest.mark.parametrize("declared", [str, bytes, int, tuple[str, int], Route], ids=repr)
def test_a_record_without_its_key_is_told_by_the_declaration(declared: Any) -> None:
    """`pipeline produce` without --key, or a producer in a hurry: the usual first error of an app."""
    codec = resolve_key(declared, "topic flights", tombstones=True)
    with pytest.raises(TypeError, match="the record has no key; topic flights declares key=") as caught:
        codec.decode(None)
    assert getattr(declared, "__name__", "") in str(caught.value)


def test_a_null_key_is_allowed_where_the_type_says_so() -> None:
    """Topics of other producers have records without a key."""
    codec = topic_key(str | None)
    assert codec.allows_none
    assert (codec.encode(None), codec.decode(None)) == (None, None)
    assert (codec.encode(""), codec.decode(b"")) == (b"", "")


def test_a_topic_without_a_key_ignores_what_arrives_and_sends_none() -> None:
    """Declared without `key`, a topic is read whatever its producers put there."""
    codec = topic_key(None)
    assert (codec.decode(b"anything"), codec.decode(None), codec.encode(None)) == (None, None, None)
    with pytest.raises(TypeError, match="declared without a key"):
        codec.encode("k")


@pytest.mark.parametrize(
    "declared",
    [
        float,
        dict[str, int],
        list[str],
        tuple[str, float],
        tuple[str, ...],
        tuple[str, tuple[str, str]],
        tuple[str | None, str],
        Mutable,
        NoEquality,
        WithFloat,
        Pair,
        object,
        str | int,
        Any,
    ],
    ids=repr,
)
def test_a_type_without_one_form_is_refused_when_it_is_declared(declared: Any) -> None:
    """0.1 + 0.2 is no key; a dict has no order."""
    with pytest.raises(ConfigError, match=r"table main\.t: .* cannot be a key") as caught:
        table_key(declared)
    assert caught.value.hint == "use str, bytes, int, or a tuple or frozen Struct of str, int and bool"


@pytest.mark.parametrize("declared", [None, str | None, Route | None], ids=repr)
def test_a_table_has_no_null_key(declared: Any) -> None:
    """There is nothing to find such a row by; the declaration is refused, not the first record."""
    with pytest.raises(ConfigError, match=r"table main\.t: .* cannot be a key"):
        table_key(declared)


# Prefixes


@given(texts, texts)
def test_a_prefix_of_text_finds_exactly_the_keys_that_begin_with_it(prefix: str, key: str) -> None:
    """`items(prefix=...)` compares bytes, and must mean the same as comparing text."""
    codec = table_key(str)
    assert (codec.encode(key) or b"").startswith(codec.prefix(prefix)) == key.startswith(prefix)


@given(st.binary(), st.binary())
def test_a_prefix_of_bytes_finds_exactly_the_keys_that_begin_with_it(prefix: bytes, key: bytes) -> None:
    """As for text."""
    codec = table_key(bytes)
    assert (codec.encode(key) or b"").startswith(codec.prefix(prefix)) == key.startswith(prefix)


small = st.sampled_from(["", "a", "ab", '"', "\\", ",", "]"])
numbers = st.sampled_from([0, 1, 10, 11, -1])


@given(st.tuples(small, numbers, small), st.tuples(small, numbers, small), st.integers(0, 3))
def test_first_fields_find_exactly_the_keys_that_have_them(
    key: tuple[str, int, str], other: tuple[str, int, str], fields: int
) -> None:
    """("AA", 1) must not find ("AA", 10, ...), nor ("A",) find ("AA", ...)."""
    codec = table_key(tuple[str, int, str])
    prefix = other[:fields]
    assert (codec.encode(key) or b"").startswith(codec.prefix(prefix)) == (key[:fields] == prefix)


def test_first_fields_of_a_struct_are_given_as_a_tuple() -> None:
    """A Struct cannot be made of its first fields alone."""
    codec = table_key(Route)
    data = codec.encode(Route("JFK", 7)) or b""
    assert data.startswith(codec.prefix(("JFK",)))
    assert data.startswith(codec.prefix(("JFK", 7)))
    assert data == codec.prefix(Route("JFK", 7))
    assert not data.startswith(codec.prefix(("JF",)))


@pytest.mark.parametrize("prefix", [("a", 1, "b", "c"), (1,), ("a", "b"), ("a", True)], ids=repr)
def test_first_fields_that_no_key_can_have_are_refused(prefix: Any) -> None:
    """A silent empty answer would pass for an empty table."""
    with pytest.raises((TypeError, ValueError)):
        table_key(tuple[str, int, str]).prefix(prefix)


def test_ints_have_no_prefixes() -> None:
    """The first bytes of a number mean nothing."""
    with pytest.raises(TypeError, match="keys of this type have no prefixes: 5"):
        table_key(int).prefix(5)


# Fingerprints


def test_different_key_types_have_different_fingerprints() -> None:
    """A table whose keys are read as another type finds nothing it stored."""
    declared = [str, bytes, int, tuple[str, str], tuple[str, int], tuple[str, str, str], Route, KeywordRoute]
    assert len({table_key(kind).schema for kind in declared}) == len(declared)


# Keys that a person types


@pytest.mark.parametrize(
    ("declared", "text", "key"),
    [
        (str, "AA", "AA"),
        (str, "7", "7"),
        (bytes, "AA", b"AA"),
        (int, "-7", -7),
        (tuple[str, int], '["AA", 7]', ("AA", 7)),
        (Route, '[ "JFK",7,true ]', Route("JFK", 7, True)),
        (KeywordRoute, '["JFK",7]', KeywordRoute(origin="JFK", number=7)),
    ],
    ids=repr,
)
def test_a_key_can_be_typed(declared: Any, text: str, key: Any) -> None:
    """`pipeline table show TABLE KEY` looks for exactly this key."""
    assert parse_key(table_key(declared), text) == key


@pytest.mark.parametrize(
    ("declared", "text"),
    [(int, "seven"), (int, str(2**63)), (tuple[str, int], "AA"), (tuple[str, int], '["AA"]'), (Route, "{}")],
    ids=repr,
)
def test_a_typed_key_that_cannot_be_one_is_shown_with_the_reason(declared: Any, text: str) -> None:
    """A person reads this, so no traceback."""
    with pytest.raises(InputError) as caught:
        parse_key(table_key(declared), text)
    assert repr(text) in caught.value.message

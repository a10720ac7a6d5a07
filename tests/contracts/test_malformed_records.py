"""Records that other clients write and the Kafka client cannot represent: real and fake behave alike."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest

from pipeline.core.headers import UnreadableHeadersError, headers_of, readable_headers, shielded
from pipeline.core.names import TopicPartition
from tests.contracts.conftest import World, drain
from tests.support.raw_records import RawRecord

GOOD = RawRecord(b"k", b"good", [(b"a", b"1")])
BAD = RawRecord(
    b"k", b"bad", [(b"ok", b"1"), (b"caf\xe9", b"2"), (b"none", None), (b"\xff", None), (b"ok", b"")]
)
READABLE = [("ok", b"1"), ("none", None), ("ok", b"")]


def _read(world: World, *records: RawRecord) -> list[Any]:
    topic = world.topic("in")
    assert world.write_raw(topic, records) == 0
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    return list(drain(source, len(records)))


def test_the_client_fails_once_on_a_header_name_that_is_not_utf8(world: World) -> None:
    """The second answer holds a null pointer, so the rules of `pipeline.core.headers` must hold at the first."""
    (record,) = _read(world, BAD)
    ask = methodcaller("headers")
    with pytest.raises(SystemError):
        ask(record)
    assert len(ask(record)) == len(BAD.headers)


def test_unreadable_headers_raise_each_time_they_are_asked_for(world: World) -> None:
    """After many good records, too: a call that the interpreter has specialized does not notice the error."""
    records = _read(world, *[GOOD] * 50, BAD, BAD, GOOD)
    assert [list(headers_of(record)) for record in records[:50]] == [[("a", b"1")]] * 50
    for record in records[50:52] * 2:
        with pytest.raises(
            UnreadableHeadersError, match=r"2 of 5 headers cannot be read: .* not valid UTF-8"
        ):
            headers_of(record)
        found, reason = readable_headers(record)
        assert (list(found), "caf\\xe9" in reason) == (READABLE, True)
    assert readable_headers(records[52]) == ([("a", b"1")], "")
    assert (records[50].key(), records[50].value()) == (b"k", b"bad")


USES: list[Callable[[Any], object]] = [list, dict, len, bool, iter, lambda h: h[0], lambda h: "a" in h]


def test_a_shielded_record_is_safe_for_code_of_others(world: World) -> None:
    """A codec of the user's is given the client's own message, and asks it for its headers itself."""
    good, bad = _read(world, GOOD, BAD)
    assert shielded(good).headers() == [("a", b"1")]
    for use in USES * 2:
        with pytest.raises(UnreadableHeadersError, match="not valid UTF-8"):
            use(shielded(bad).headers())


def test_a_header_name_is_cut_at_its_first_nul(world: World) -> None:
    """The client passes names as C strings: what comes after a NUL cannot be seen from Python."""
    (record,) = _read(world, RawRecord(b"k", b"v", [(b"trace\x00id", b"1"), (b"", b"2")]))
    assert list(headers_of(record)) == [("trace", b"1"), ("", b"2")]


def test_two_readers_of_a_record_do_not_disturb_each_other(world: World) -> None:
    """A worker that takes a task over meets the record as the one before it did."""
    topic = world.topic("in")
    assert world.write_raw(topic, [BAD]) == 0
    for _ in range(2):
        source = world.source()
        source.assign({TopicPartition(topic, 0): 0})
        (record,) = drain(source, 1)
        with pytest.raises(UnreadableHeadersError):
            headers_of(record)

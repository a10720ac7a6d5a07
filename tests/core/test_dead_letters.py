"""Dead letters and replays as bytes: what is written is what is read, and nothing else is taken for it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.dead_letters import (
    Letter,
    Origin,
    Replay,
    bounded,
    decode_replay,
    encode_replay,
    letter_headers,
    read_letter,
)
from pipeline.errors import InvariantError

LETTER = Letter(
    Origin("orders", 3, 41, 1_700_000_000_123),
    "handle",
    "ValueError: ö",
    "Traceback ...",
    "shop",
    "main",
    4,
    2,
    1_700_000_000_999,
    "Q0pLd2xhc3M",
)
REPLAY = Replay(
    topic="orders",
    partition=3,
    offset=41,
    timestamp_ms=-1,
    key=None,
    value=b"\xff",
    headers=(("event-id", b"1"), ("empty", None), ("event-id", b"2")),
    letter_partition=0,
    letter_offset=7,
    number=1,
    topic_id="Q0pLd2xhc3M",
)


def test_a_letter_says_what_was_written_and_gives_the_records_own_headers_back() -> None:
    """Doubled names and headers without a value belong to the record, too."""
    own = [("event-id", b"1"), ("empty", None), ("event-id", b"2")]
    assert read_letter([*own, *letter_headers(LETTER)]) == (LETTER, own)
    without = LETTER._replace(left_out="1 of 4 headers cannot be read")
    assert read_letter([*own, *letter_headers(without)]) == (without, own)


def test_of_a_dead_letter_that_failed_as_an_input_the_last_block_counts() -> None:
    """It comes from the dead-letter topic that it was read from; its own story is among its headers."""
    second = LETTER._replace(origin=Origin("shop.main.dead-letters", 0, 5, 9), handler="alert")
    first_headers = [("trace", b"7"), *letter_headers(LETTER)]
    assert read_letter([*first_headers, *letter_headers(second)]) == (second, first_headers)


def test_a_letter_of_an_earlier_release_is_read() -> None:
    """Topics are full of them: they had five headers."""
    headers = [
        ("trace", b"7"),
        ("dead-letter-topic", b"orders"),
        ("dead-letter-partition", b"3"),
        ("dead-letter-offset", b"41"),
        ("dead-letter-handler", b"handle"),
        ("dead-letter-error", b"ValueError: no"),
    ]
    assert read_letter(headers) == (
        Letter(Origin("orders", 3, 41), "handle", "ValueError: no"),
        [("trace", b"7")],
    )


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("trace", b"7")],
        [("dead-letter-topic", b"t")],
        [("dead-letter-topic", b"t"), ("dead-letter-partition", b"x"), ("dead-letter-offset", b"1")],
        [("dead-letter-topic", b"t"), ("dead-letter-partition", b"0"), ("dead-letter-offset", None)],
    ],
)
def test_a_record_that_is_no_dead_letter_is_told_from_one(headers: list[tuple[str, bytes | None]]) -> None:
    """Anybody may write to that topic: a record without a place cannot be replayed, and must not fail the listing."""
    assert read_letter(headers) is None


@given(text=st.text(st.characters(), max_size=300), limit=st.integers(40, 200))
def test_a_bounded_text_keeps_its_beginning_and_its_end(text: str, limit: int) -> None:
    """Whatever is in it, and wherever it is cut; the end says which error it was."""
    found = bounded(text, limit)
    whole = text.encode(errors="backslashreplace")
    assert len(found) <= limit
    found.decode()
    if len(whole) <= limit:
        assert found == whole
    else:
        head, tail = found.split(b"\n[...]\n", 1)
        assert whole.startswith(head)
        assert whole.endswith(tail)


def test_all_texts_of_a_letter_are_bounded() -> None:
    """A letter must fit its topic whatever the error says: it may take 64 KiB more than its record."""
    long = "x" * 1_000_000
    letter = Letter(Origin("t" * 249, 0, 0), long, long, long, "a" * 80, "g" * 80)
    assert sum(len(name) + len(value) for name, value in letter_headers(letter)) < 16_000


def test_a_replay_is_read_as_it_was_written() -> None:
    """Null keys, odd bytes and doubled headers included."""
    assert decode_replay(encode_replay(REPLAY)) == REPLAY


def test_replays_of_the_first_version_are_read_by_every_later_release() -> None:
    """They may wait for a worker that starts weeks later, under a newer release."""
    data = bytes.fromhex(
        "01d5ced9808aa5746f706963a66f7264657273a9706172746974696f6e03a66f666673657429ac74"
        "696d657374616d705f6d73ffa36b6579c0a576616c7565c401ffa7686561646572739392a8657665"
        "6e742d6964c4013192a5656d707479c092a86576656e742d6964c40132b06c65747465725f706172"
        "746974696f6e00ad6c65747465725f6f666673657407a66e756d62657201"
    )
    assert decode_replay(data) == msgspec.structs.replace(REPLAY, topic_id="")


@pytest.mark.parametrize("at", [0, 1, 5, 20, -1])
def test_a_replay_that_is_damaged_is_none(at: int) -> None:
    """The task gives it back as a dead letter; guessing would be worse."""
    data = bytearray(encode_replay(REPLAY))
    data[at] ^= 1
    assert decode_replay(bytes(data)) is None


@pytest.mark.parametrize("data", [None, b"", b"\x01", b"\x01\x00\x00\x00\x00", b'{"json": 1}'])
def test_what_is_no_replay_is_none(data: bytes | None) -> None:
    """Another program may write to the topic in spite of its name."""
    assert decode_replay(data) is None


def test_a_replay_without_a_number_is_never_written() -> None:
    """A worker would take the record for one that was never replayed."""
    with pytest.raises(InvariantError):
        encode_replay(Replay(**{**{f: getattr(REPLAY, f) for f in Replay.__struct_fields__}, "number": 0}))

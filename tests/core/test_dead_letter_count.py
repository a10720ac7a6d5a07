"""Counts of dead letters in journals, and tallies beside marks."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.core.dead_letter_count import (
    NO_LETTERS,
    LetterCount,
    LetterNumber,
    LetterTally,
    begun,
    decode_tally,
    encode_tally,
    grown,
    open_letters,
    recent,
)
from pipeline.core.journal_format import Entry, EntryKind

MINUTE = 60_000


def tally(open_: int, counted: dict[int, LetterNumber], topic_id: str = "t") -> LetterTally:
    return LetterTally(group="main", topic_id=topic_id, open=open_, counted=counted, wall_ms=1)


@pytest.mark.parametrize(
    ("before", "empty", "expected"),
    [
        (LetterCount("t", 3, 7), False, LetterCount("t", 3, 7)),
        (NO_LETTERS, False, LetterCount("t", 9, 0)),
        (LetterCount("old", 3, 7, whole=False), False, LetterCount("t", 9, 0)),
        (None, True, LetterCount("t", 9, 0)),
        (None, False, LetterCount("t", 9, 0, whole=False)),
    ],
    ids=["continued", "first letters", "another topic", "earlier release, none", "earlier release"],
)
def test_an_owner_continues_a_count_or_begins_one(
    before: LetterCount | None, empty: bool, expected: LetterCount
) -> None:
    """A count that begins behind letters must say that it does not know them."""
    assert begun(before, "t", 9, empty=empty) == expected


def test_a_count_grows_with_each_commit_and_is_carried_by_every_entry() -> None:
    """Every last entry must have the count, whichever worker wrote it."""
    mine = LetterCount("t", 9)
    first = grown(NO_LETTERS, mine, 2, 1_000)
    assert first is not None
    assert (first.at, first.last_ms) == (LetterNumber(9, 2), 1_000)
    assert grown(first, None, 0, 2_000) == first
    second = grown(first, mine, 3, 1_000)
    assert second is not None
    assert second.at == LetterNumber(9, 5)
    assert grown(None, None, 0, 1_000) is None


def test_the_rate_is_that_of_about_the_last_minute() -> None:
    """An incident that is over must not look like one that continues."""
    count: LetterCount | None = LetterCount("t", 1)
    for second in range(600):
        count = grown(count, count, 2, second * 1_000)
    assert count is not None
    assert recent(count, 600_000) == pytest.approx(120, rel=0.05)
    assert recent(count, 600_000 + 10 * MINUTE) < 1
    assert recent(count, 0) == pytest.approx(recent(count, 599_000))  # a clock that is behind


@pytest.mark.parametrize(
    ("counts", "known", "expected", "whole"),
    [
        ({}, None, 0, True),
        ({0: LetterCount("t", 1, 5), 1: LetterCount("t", 1, 2)}, None, 7, True),
        ({0: LetterCount("t", 1, 5)}, tally(3, {0: LetterNumber(1, 4)}), 4, True),
        ({0: LetterCount("t", 1, 5)}, tally(-2, {0: LetterNumber(1, 2)}), 1, True),
        ({0: LetterCount("t", 1, 5, whole=False)}, None, 5, False),
        ({0: LetterCount("t", 1, 5, whole=False)}, tally(9, {0: LetterNumber(1, 5)}), 9, True),
        ({0: LetterCount("t", 8, 2, whole=False)}, tally(9, {0: LetterNumber(1, 5)}), 11, False),
        ({0: LetterCount("t", 1, 5)}, tally(3, {0: LetterNumber(1, 4)}, "deleted"), 5, True),
        ({0: LetterCount("deleted", 1, 5)}, tally(3, {}), 3, True),
        ({0: LetterCount("t", 1, 1)}, tally(-5, {}), 0, True),
        ({0: None}, None, 0, False),
        ({0: LetterCount("t", 1, 5), 1: None}, tally(3, {0: LetterNumber(1, 4)}), 4, False),
    ],
)
def test_open_are_those_of_the_tally_and_those_written_since(
    counts: dict[int, LetterCount | None], known: LetterTally | None, expected: int, whole: bool
) -> None:
    """Each letter counts in one of the two, and letters of a deleted topic in none."""
    found = open_letters("t", counts, known, 0)
    assert (found.open, found.whole) == (expected, whole)


def test_a_tally_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    """A damaged tally is counted anew, so it must not pass for a number."""
    written = tally(3, {0: LetterNumber(1, 4), 12: LetterNumber(7, 1)})
    data = encode_tally(written)
    assert decode_tally(data) == written
    for bad in (
        None,
        b"",
        b"{",
        data.replace(b'"open":3', b'"open":4'),
        data.replace(b'version":1', b'version":2'),
    ):
        assert decode_tally(bad) is None


def test_entries_of_earlier_releases_have_no_count() -> None:
    """And those releases skip what they do not know."""
    entry = Entry(EntryKind.COMMIT, 2, "w", b"n", {"in": 1}, letters=LetterCount("t", 1, 5))
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(entry))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=Entry) == entry
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields[:-1]), type=Entry).letters is None

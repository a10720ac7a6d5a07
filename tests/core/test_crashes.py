"""The rules by which a record is found that crashes its process: every row of the tables."""

from __future__ import annotations

import zlib

import pytest

from pipeline.core.crashes import (
    MAX_SUSPECTS,
    Conduct,
    Crash,
    Input,
    Span,
    Suspect,
    conduct,
    decode_suspects,
    encode_suspects,
    judge,
    merge,
    read_trace,
    remember,
    suspect_at,
)
from pipeline.core.names import TaskId

INPUT = Input(TaskId("app", "main", 3), "in", "id-1")
TRACE = """Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "a.py", line 1 in wait

Current thread 0x00007f0000000002 (most recent call first):
  File "b.py", line 2 in crash
  File "b.py", line 9 in handler

Extension modules: one, two (total: 2)
"""


def crash(first: int, last: int, *, here: bool = True) -> Crash:
    return Crash(INPUT, Span(first, last), here)


@pytest.mark.parametrize(
    ("before", "ended", "after"),
    [
        ([], crash(10, 19), [Suspect(Span(10, 19), 1, True)]),
        ([], crash(10, 19, here=False), [Suspect(Span(10, 19), 1, False)]),
        ([Suspect(Span(10, 19), 1, True)], crash(15, 29), [Suspect(Span(15, 19), 2, True)]),
        ([Suspect(Span(15, 19), 2, True)], crash(19, 19), [Suspect(Span(19, 19), 3, True)]),
        ([Suspect(Span(15, 19), 2, False)], crash(17, 17), [Suspect(Span(17, 17), 3, False)]),
        ([Suspect(Span(15, 19), 2, True)], crash(17, 17, here=False), [Suspect(Span(17, 17), 3, False)]),
        (
            [Suspect(Span(15, 15), 3, True)],
            crash(16, 29),
            [Suspect(Span(15, 15), 3, True), Suspect(Span(16, 29), 1, True)],
        ),
        (
            [Suspect(Span(10, 19), 1, True), Suspect(Span(15, 24), 2, True)],
            crash(15, 19),
            [Suspect(Span(10, 19), 1, True), Suspect(Span(15, 19), 3, True)],
        ),
    ],
)  # fmt: skip
def test_a_crash_adds_to_what_is_suspected(before: list[Suspect], ended: Crash, after: list[Suspect]) -> None:
    """Batches begin elsewhere after each restart; the record is in all of them."""
    assert judge(before, ended) == after


@pytest.mark.parametrize(
    ("suspect", "how"),
    [
        (None, Conduct.NORMAL),
        (Suspect(Span(10, 11), 1, True), Conduct.NORMAL),
        (Suspect(Span(10, 10), 1, True), Conduct.NORMAL),
        (Suspect(Span(10, 11), 2, True), Conduct.CAUTIOUS),
        (Suspect(Span(10, 10), 2, True), Conduct.CAUTIOUS),
        (Suspect(Span(10, 11), 3, True), Conduct.CAUTIOUS),
        (Suspect(Span(10, 10), 3, True), Conduct.APPLY_POLICY),
        (Suspect(Span(10, 10), 9, True), Conduct.APPLY_POLICY),
        (Suspect(Span(10, 10), 2, False), Conduct.CAUTIOUS),
        (Suspect(Span(10, 10), 3, False), Conduct.STOP),
    ],
)  # fmt: skip
def test_a_record_is_treated_by_what_is_suspected(suspect: Suspect | None, how: Conduct) -> None:
    """It is condemned alone, at the third crash, and never by a foreign thread."""
    assert conduct(suspect) is how


@pytest.mark.parametrize(
    ("mine", "noted", "both"),
    [
        ([], [Suspect(Span(1, 2), 1, True)], [Suspect(Span(1, 2), 1, True)]),
        ([Suspect(Span(1, 2), 1, True)], [], [Suspect(Span(1, 2), 1, True)]),
        ([Suspect(Span(1, 2), 1, True)], [Suspect(Span(2, 2), 2, False)], [Suspect(Span(2, 2), 2, False)]),
        ([Suspect(Span(2, 2), 3, True)], [Suspect(Span(1, 2), 2, True)], [Suspect(Span(2, 2), 3, True)]),
        ([Suspect(Span(2, 2), 2, True)], [Suspect(Span(2, 2), 2, False)], [Suspect(Span(2, 2), 2, True)]),
        (
            [Suspect(Span(1, 1), 1, True)],
            [Suspect(Span(2, 2), 2, True)],
            [Suspect(Span(1, 1), 1, True), Suspect(Span(2, 2), 2, True)],
        ),
    ],
)  # fmt: skip
def test_of_two_workers_the_one_that_knows_more_counts(
    mine: list[Suspect], noted: list[Suspect], both: list[Suspect]
) -> None:
    """Their crashes are not added up: the note of one includes what it had heard of the other."""
    assert merge(mine, noted) == both


def test_a_suspicion_is_of_its_records_only() -> None:
    """Of two, the one that is nearest to a verdict counts."""
    one, two = Suspect(Span(10, 12), 1, True), Suspect(Span(12, 13), 2, True)
    assert [suspect_at([one, two], offset) for offset in range(9, 15)] == [None, one, one, two, two, None]


def test_suspicions_are_bounded_and_the_newest_stay() -> None:
    """A disk that every deployment's crashes are noted on must not fill."""
    suspects = remember({}, crash(1, 1))
    for number in range(MAX_SUSPECTS):
        other = Input(TaskId("app", "main", number + 10), "in", "id-1")
        suspects = remember(suspects, Crash(other, Span(0, 0), here=True))
    assert len(suspects) == MAX_SUSPECTS
    assert INPUT not in suspects
    assert list(suspects)[-1].task.number == MAX_SUSPECTS + 9


def test_suspicions_come_back_from_the_disk() -> None:
    """With the process whose end they include, so that it is counted once."""
    suspects = remember({}, crash(10, 19, here=False))
    assert decode_suspects(encode_suspects(suspects, "1-ab")) == (suspects, "1-ab")


@pytest.mark.parametrize("damage", [b"", b"x", b"00000000\n{}", b"\xff" * 30])
def test_damaged_suspicions_are_none(damage: bytes) -> None:
    """Counting from 0 again costs three crashes; a wrong suspicion could skip a good record."""
    whole = encode_suspects(remember({}, crash(10, 19)), "1-ab")
    for data in (damage, whole[:-1], whole.replace(b"in", b"on")):
        assert decode_suspects(data) == ({}, "")


def test_suspicions_of_another_version_are_none() -> None:
    """A later release may count differently."""
    body = encode_suspects(remember({}, crash(10, 19)), "1-ab").partition(b"\n")[2].replace(b"[1,", b"[2,", 1)
    assert decode_suspects(b"%08x\n%s" % (zlib.crc32(body), body)) == ({}, "")


def test_an_input_comes_back_from_its_note() -> None:
    """And anything else in its place is not an input."""
    assert Input.decode(INPUT.encode()) == INPUT
    assert [Input.decode(data) for data in (b"", b"a\nb", b"a\nb\nc\nd\ne", b"\xff")] == [None] * 4


def test_a_trace_says_why_and_on_which_thread() -> None:
    """Only the frames of the thread that got the signal are shown."""
    found = read_trace(TRACE)
    assert found is not None
    assert (found.reason, found.thread) == ("Segmentation fault", 0x7F0000000002)
    assert found.stack == '  File "b.py", line 2 in crash\n  File "b.py", line 9 in handler'


def test_a_trace_of_a_foreign_thread_names_none() -> None:
    """A thread of a library's pool is unknown to Python."""
    found = read_trace(TRACE.replace("Current thread", "Thread"))
    assert found is not None
    assert (found.thread, found.stack) == (None, "")
    assert read_trace("") is None

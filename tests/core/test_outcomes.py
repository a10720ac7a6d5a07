"""The table of `resolve_outcome`, row by row."""

from __future__ import annotations

import pytest

from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.recovery import CommitOutcome, resolve_outcome
from pipeline.errors import FatalTaskError
from tests.support.core.recovery_case import TASK, assert_helpful, journal_entry

HEAD = journal_entry(7)


def test_outcome_is_aborted_when_nothing_follows_row_1() -> None:
    """The commit did not happen and never will: init has fenced it. It is published again."""
    assert resolve_outcome(TASK, HEAD, [b"ours"], [HEAD]) == (CommitOutcome.ABORTED, HEAD)


def test_outcome_is_aborted_without_an_attempt_row_1() -> None:
    """A renewal between commits finds things as they were."""
    assert resolve_outcome(TASK, HEAD, [], [HEAD]) == (CommitOutcome.ABORTED, HEAD)


def test_outcome_is_committed_when_our_nonce_follows_row_2() -> None:
    """The error was only in the answer: publishing again would double everything."""
    ours = journal_entry(8, nonce=b"ours")
    assert resolve_outcome(TASK, HEAD, [b"ours"], [HEAD, ours]) == (CommitOutcome.COMMITTED, ours)


def test_outcome_is_committed_when_an_earlier_attempt_did_row_2() -> None:
    """A stale read had taken it for aborted, and another attempt was made since."""
    ours = journal_entry(8, nonce=b"first")
    assert resolve_outcome(TASK, HEAD, [b"first", b"second"], [HEAD, ours]) == (CommitOutcome.COMMITTED, ours)


@pytest.mark.parametrize(
    ("nonce", "found"),
    [
        (b"ours", [journal_entry(8, nonce=b"theirs")]),
        (b"ours", [journal_entry(8, EntryKind.ACQUIRE, nonce=b"theirs")]),
        (None, [journal_entry(8, nonce=b"theirs")]),
        (None, [journal_entry(8, nonce=b"")]),
        (b"ours", [journal_entry(8, nonce=b"ours"), journal_entry(9, EntryKind.ACQUIRE, nonce=b"theirs")]),
        (b"ours", [journal_entry(8, nonce=b"theirs"), journal_entry(9, nonce=b"ours")]),
    ],
    ids=[
        "theirs",
        "acquired",
        "no attempt",
        "no attempt, no nonce",
        "ours, then theirs",
        "theirs, then ours",
    ],
)
def test_outcome_is_superseded_when_another_owner_wrote_row_3(
    nonce: bytes | None, found: list[JournalEntry]
) -> None:
    """The task's uncommitted writes are based on a state that is no longer the last one."""
    outcome, last = resolve_outcome(TASK, HEAD, [] if nonce is None else [nonce], [HEAD, *found])
    assert (outcome, last) == (CommitOutcome.SUPERSEDED, found[-1])


@pytest.mark.parametrize(
    "found",
    [
        [],
        [journal_entry(7, chain=99)],
        [HEAD._replace(offset=HEAD.offset + 2)],
        [journal_entry(8, nonce=b"ours")],
    ],
    ids=["nothing", "another chain", "another place", "only ours"],
)
def test_outcome_is_refused_when_a_committed_entry_is_gone_row_4(found: list[JournalEntry]) -> None:
    """What was acknowledged is no longer there: the journal's tail was lost."""
    with pytest.raises(FatalTaskError) as caught:
        resolve_outcome(TASK, HEAD, [b"ours"], found)
    assert_helpful(caught.value, TASK, "entry 7", "offset 14", "Kafka lost committed records")

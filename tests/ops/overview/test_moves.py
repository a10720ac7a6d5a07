"""Why a task moved, from the notes of the workers: every row of the table."""

from __future__ import annotations

import pytest

from pipeline.core.departures import Departure
from pipeline.core.names import TaskId
from pipeline.core.notes import About, Claim, Owner
from pipeline.ops.overview.moves import Moves, grouped

TASK = TaskId("shop", "main", 0)
A1, A2, B = "1-aa", "2-aa", "3-bb"  # processes
NO_TASK = TaskId("shop", "", -1)


def moves_of(*notes: About) -> Moves:
    """One note per second."""
    moves = Moves()
    for second, about in enumerate(notes, 1):
        moves.take(second * 1_000, NO_TASK if isinstance(about, Departure) else TASK, about)
    return moves


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ((), "no earlier owner is recorded"),
        ((Owner(1, "a", A2),), "it was restored again by the same process"),
        ((Owner(1, "a", A1),), "a was restarted after a crash"),
        ((Owner(1, "a", A1, released=True),), "the worker was restarted"),
        ((Owner(1, "b", B),), "b ended without releasing it, or was unreachable"),
        ((Owner(1, "b", B), Owner(1, "b", B, released=True)), "b handed it over, to balance the load"),
        ((Owner(1, "b", B, released=True), Departure("b", B)), "b was stopped"),
        ((Owner(1, "b", B), Departure("b", B)), "b ended"),
        ((Owner(1, "b", B), Departure("b", B, by="c")), "b ended"),
        ((Owner(1, "b", B, released=True, problem="no disk"), Departure("b", B)), "it had failed on b"),
    ],
)
def test_the_reason_of_an_acquire(notes: tuple[About, ...], why: str) -> None:
    """The journal names only the new owner."""
    moves = moves_of(*notes, Owner(5, "a", A2))
    newest = [move for move in moves.events if move.kind == "acquire"][-1]
    assert (newest.worker, newest.why, newest.seq) == ("a", why, 5)


def test_a_note_that_is_written_again_is_no_move() -> None:
    """Workers repeat their notes when the topic was created again, or when an older note came late."""
    moves = moves_of(Owner(5, "a", A1), Owner(5, "a", A1), Owner(3, "b", B), Owner(5, "a", A1))
    assert [move.kind for move in moves.events] == ["acquire"]


def test_a_failure_is_noted_once_with_its_first_line() -> None:
    """Stack frames belong in the log of the worker."""
    failed = Owner(5, "a", A1, released=True, problem="ValueError: bad\n  -> fix it")
    moves = moves_of(Owner(5, "a", A1), failed, failed)
    assert [(move.kind, move.why) for move in moves.events][1:] == [("failure", "ValueError: bad")]


def test_a_claim_is_noted_when_it_begins() -> None:
    """It becomes ready later, and is withdrawn at the end; both are no news."""
    moves = moves_of(Claim("a", A1), Claim("a", A1, ready=True), Claim("", ""))
    assert [(move.kind, move.worker) for move in moves.events] == [("claim", "a")]


def test_a_release_before_a_departure_says_that_the_worker_stopped() -> None:
    """A process notes that it leaves only after it has released its tasks."""
    moves = moves_of(Owner(5, "a", A1), Owner(5, "a", A1, released=True), Departure("a", A1))
    assert moves.events[-1].why == "a was stopped"


def test_equal_moves_within_seconds_are_one() -> None:
    """A worker with 100 tasks dies once."""
    moves = Moves()
    for number in range(4):
        moves.take(1_000 + number, TaskId("shop", "main", number), Owner(1, "a", A1))
    moves.take(60_000, TaskId("shop", "main", 9), Owner(1, "a", A1))
    assert [len(move.tasks) for move in grouped(moves.events)] == [4, 1]

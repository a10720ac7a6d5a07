"""A row for each line of the table by which a worker judges another one from its connection."""

from __future__ import annotations

import pytest

from pipeline.core.peer_watch import (
    MAX_GREETING,
    UNREACHABLE_S,
    PeerSignal,
    PeerState,
    PeerView,
    greeted_by,
    greeting,
)
from pipeline.errors import InvariantError

MET = PeerView().after(PeerSignal.GREETED, 0.0)
ENDED = MET.after(PeerSignal.ENDED, 10.0)
RESET = MET.after(PeerSignal.RESET, 10.0)
DEAD = ENDED.after(PeerSignal.REFUSED, 10.1)


@pytest.mark.parametrize(
    ("view", "signal", "at_s", "state"),
    [
        (PeerView(), PeerSignal.GREETED, 0.0, PeerState.WATCHED),
        *(
            (PeerView(), signal, 0.0, PeerState.UNMET)
            for signal in PeerSignal
            if signal is not PeerSignal.GREETED
        ),
        (MET, PeerSignal.ENDED, 10.0, PeerState.DOUBTED),
        (MET, PeerSignal.RESET, 10.0, PeerState.DOUBTED),
        (ENDED, PeerSignal.GREETED, 10.1, PeerState.WATCHED),
        (ENDED, PeerSignal.REFUSED, 10.1, PeerState.DEAD),
        (RESET, PeerSignal.REFUSED, 99.0, PeerState.DEAD),
        (ENDED, PeerSignal.GREETED_BY_OTHER, 10.1, PeerState.DEAD),
        (ENDED, PeerSignal.UNREACHABLE, 10.0 + UNREACHABLE_S, PeerState.DEAD),
        (ENDED, PeerSignal.UNREACHABLE, 9.9 + UNREACHABLE_S, PeerState.DOUBTED),
        (RESET, PeerSignal.UNREACHABLE, 99.0, PeerState.DOUBTED),
        (ENDED, PeerSignal.ENDED, 10.1, PeerState.DOUBTED),
        (ENDED, PeerSignal.RESET, 10.1, PeerState.DOUBTED),
        (ENDED, PeerSignal.FOREIGN, 10.1, PeerState.DOUBTED),
        *((DEAD, signal, 99.0, PeerState.DEAD) for signal in PeerSignal),
    ],
)
def test_each_signal_leads_to_the_state_of_its_row(
    view: PeerView, signal: PeerSignal, at_s: float, state: PeerState
) -> None:
    """A wrong death costs a restore, and a missed one ten seconds."""
    assert view.after(signal, at_s).state is state


@pytest.mark.parametrize("answer", [PeerSignal.ENDED, PeerSignal.RESET, PeerSignal.FOREIGN])
def test_an_address_that_answered_in_the_doubt_is_not_gone(answer: PeerSignal) -> None:
    """Something is there, so that it is unreachable later says nothing about the process."""
    later = ENDED.after(answer, 10.1)
    assert later.after(PeerSignal.UNREACHABLE, 99.0).state is PeerState.DOUBTED


def test_a_process_that_was_met_again_is_doubted_from_its_new_end() -> None:
    """The time of an earlier doubt does not count."""
    again = ENDED.after(PeerSignal.GREETED, 10.1).after(PeerSignal.ENDED, 50.0)
    assert again.after(PeerSignal.UNREACHABLE, 50.5).state is PeerState.DOUBTED


def test_a_doubt_is_pursued_quickly_at_first() -> None:
    """A port that is free is found at once, and an unreachable host is not called ten times a second forever."""
    assert ENDED.retry_s(10.0) == pytest.approx(0.02)
    assert ENDED.retry_s(10.5) == pytest.approx(0.1)
    assert ENDED.retry_s(60.0) == pytest.approx(1.0)
    assert PeerView().retry_s(0.0) == pytest.approx(1.0)


def test_a_greeting_names_its_process() -> None:
    """It may come in parts."""
    whole = greeting("1700000000000-00ff")
    assert greeted_by(whole) == "1700000000000-00ff"
    assert all(greeted_by(whole[:size]) is None for size in range(len(whole)))
    with pytest.raises(InvariantError):
        greeting("two\nlines")


@pytest.mark.parametrize(
    "received", [b"SSH-2.0-OpenSSH\n", b"\n", b"x" * MAX_GREETING, b"pipeline-peer/2 1-a\n"]
)
def test_what_another_program_sends_is_not_a_greeting(received: bytes) -> None:
    """The port of a dead process may belong to any program, and what it sends is bounded."""
    with pytest.raises(ValueError, match="not a greeting"):
        greeted_by(received)

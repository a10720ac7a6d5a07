"""Which departures count, and which worker watches which."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.core.departures import (
    MAX_IMMUNITY_S,
    MAX_WATCHED,
    WATCHERS,
    Departure,
    Departures,
    PeerAddress,
    Revocation,
    immunity_s,
    watched_by,
)


def at(worker: str, host: str = "10.0.0.1") -> PeerAddress:
    return PeerAddress(worker, f"1-{worker}", host, 7000)


def noted(*notes: Departure | Revocation) -> Departures:
    found = Departures()
    for note in notes:
        found.add(note)
    return found


OWN = Departure("w", "5-a")
BY_PEER = Departure("w", "5-a", "x", 0)


@pytest.mark.parametrize(
    ("notes", "left"),
    [
        ([OWN], {"5-a"}),
        ([BY_PEER], {"5-a"}),
        ([BY_PEER, Revocation("w", "5-a", 1)], set()),
        ([Revocation("w", "5-a", 1), BY_PEER], set()),  # the note of a second watcher that came late
        ([BY_PEER, Revocation("w", "5-a", 1), Departure("w", "5-a", "x", 1)], {"5-a"}),
        ([Departure("w", "5-a", "x", 1), Revocation("w", "5-a", 1)], {"5-a"}),
        ([OWN, Revocation("w", "5-a", 7)], {"5-a"}),  # a clean stop is final
        ([Revocation("w", "5-a", 7), OWN], {"5-a"}),
        ([BY_PEER, Departure("w", "6-b", "x", 0)], {"6-b"}),
        ([Departure("w", "6-b", "x", 0), BY_PEER], {"6-b"}),  # older processes have left, too
        ([Departure("w", "6-b", "x", 0), Revocation("w", "5-a", 1)], {"6-b"}),
        (
            [Revocation("w", "5-a", 3), Departure("w", "6-b", "x", 0)],
            {"6-b"},
        ),  # another process counts from 0
        ([BY_PEER, Departure("v", "5-v", "x", 0)], {"5-a", "5-v"}),
    ],
)
def test_a_departure_counts_unless_a_higher_revocation_was_written(
    notes: list[Departure | Revocation], left: set[str]
) -> None:
    """Every worker reads the notes in one order, and must come to one result."""
    assert noted(*notes).processes == left


def test_the_number_of_a_process_is_that_of_its_last_revocation() -> None:
    """A watcher writes it into its departure."""
    found = noted(Revocation("w", "5-a", 2), Revocation("w", "5-a", 1))
    assert found.number("w", "5-a") == 2
    assert found.number("w", "6-b") == found.number("v", "5-a") == 0


def test_immunity_doubles_up_to_an_hour() -> None:
    """A device that ends living connections must not cost a restore every minute."""
    assert [immunity_s(number) for number in (1, 2, 3)] == [60.0, 120.0, 240.0]
    assert immunity_s(10) == immunity_s(10_000) == MAX_IMMUNITY_S


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_each_worker_has_two_watchers_and_watches_about_as_many(count: int) -> None:
    """With one watcher, a busy or stopped one would miss an end."""
    addresses = {f"w{n}": at(f"w{n}", f"10.0.0.{n}") for n in range(count)}
    watched = Counter(target for me in addresses for target in watched_by(me, addresses))
    assert watched == Counter(dict.fromkeys(addresses, min(WATCHERS, count - 1))) or count == 1
    assert all(len(watched_by(me, addresses)) <= WATCHERS for me in addresses)
    assert all(me not in watched_by(me, addresses) for me in addresses)


def test_a_worker_has_a_watcher_on_another_host_if_there_is_one() -> None:
    """A supervisor and all its workers may be killed at once."""
    addresses = {f"{host}-{n}": at(f"{host}-{n}", host) for host in ("a", "b") for n in range(6)}
    for target, own in addresses.items():
        watchers = [me for me in addresses if target in watched_by(me, addresses)]
        assert len(watchers) == WATCHERS
        assert any(addresses[me].host != own.host for me in watchers)


def test_a_worker_alone_on_its_host_watches_a_bounded_number() -> None:
    """Each connection costs a descriptor."""
    addresses = {f"a-{n}": at(f"a-{n}", "a") for n in range(100)} | {"b": at("b", "b")}
    assert len(watched_by("b", addresses)) == MAX_WATCHED


def test_a_worker_without_an_address_watches_no_other() -> None:
    """It has no place on the circle."""
    assert watched_by("x", {"a": at("a")}) == []

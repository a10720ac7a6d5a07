"""Workers that watch each other on real sockets. A death is reported, and nothing else is."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.peer_watch import greeting
from pipeline.peers.listener import MAX_CONNECTIONS
from pipeline.ports.peers import PeerTarget
from tests.support.peers import Watching, end_connections, listening, listening_process, peers
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

ONE, TWO = "1700000000001-0a", "1700000000002-0b"


@pytest.fixture
def watching() -> Iterator[Watching]:
    with Watching() as found:
        yield found


def test_a_killed_process_is_reported_once(watching: Watching) -> None:
    """This is what everything here is for."""
    with listening_process(ONE) as (child, target):
        watching.watch(target)
        child.kill()
        assert watching.death() == target
    with listening(TWO) as (_, other):
        watching.watch(target, other, met=1)
        assert watching.deaths == []


def test_a_stopped_process_is_not_reported(watching: Watching) -> None:
    """Its kernel answers for it. When it is killed at last, that is a death."""
    with listening_process(ONE) as (child, target):
        watching.watch(target)
        child.send_signal(signal.SIGSTOP)
        with Watching() as late:
            late.watch(target, met=0)  # connects to the backlog, where nothing greets it
            child.send_signal(signal.SIGCONT)
            late.watch(target)
            child.send_signal(signal.SIGSTOP)
            assert watching.deaths == late.deaths == []
            child.kill()
            assert watching.death() == late.death() == target


def test_a_connection_that_ends_without_a_death_is_made_again(watching: Watching) -> None:
    """A device on the way may end one."""
    with listening(ONE) as (found, target), Watching() as other:
        watching.watch(target)
        end_connections(found)
        other.watch(target)
        wait_until(
            lambda: found.watchers == 2 and watching.peers.reached == 1, lambda: "it was not met again"
        )
        assert watching.deaths == []


def test_another_process_on_the_port_is_a_death(watching: Watching) -> None:
    """A worker that restarts with a fixed port may be there before anything is refused."""
    with listening(ONE) as (found, target):
        watching.watch(target)
        port = target.port
    with listening(TWO, peer_port=port) as (_, _again):
        assert watching.death() == target
    assert found.watchers == 0


def test_a_port_that_was_never_met_is_not_judged(watching: Watching) -> None:
    """An address behind NAT is refused, or belongs to another process, while its process is well."""
    with closed_port() as port, listening(TWO) as (_, other):
        wrong = [PeerTarget("a", ONE, "127.0.0.1", port), PeerTarget("b", ONE, *other[2:4])]
        watching.watch(*wrong, other, met=1)
        assert watching.deaths == []


def test_a_program_with_another_protocol_is_not_a_death(watching: Watching) -> None:
    """The port of a dead process may be anybody's; Kafka decides then."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        port.settimeout(30)
        target = PeerTarget("a", ONE, *port.getsockname())
        watching.watch(target, met=0)
        with port.accept()[0] as process:
            process.sendall(greeting(ONE))
            watching.watch(target)
        for _ in range(2):
            with port.accept()[0] as foreign:
                foreign.sendall(b"220 mail.example.org ESMTP\r\n")
                assert foreign.recv(1) == b""
        assert watching.deaths == []


def test_a_target_that_is_no_longer_given_is_forgotten(watching: Watching) -> None:
    """A process that has noted its own departure ends without an alarm."""
    with listening_process(ONE) as (child, target), listening(TWO) as (_, other):
        watching.watch(target, other)
        watching.watch(other)
        child.kill()
        child.wait()
        assert watching.deaths == []


def test_a_connection_that_sends_anything_is_ended() -> None:
    """The listener accepts no commands."""
    with (
        listening(ONE) as (_, target),
        socket.create_connection((target.host, target.port), timeout=30) as caller,
    ):
        assert caller.recv(1_000) == b"pipeline-peer/1 1700000000001-0a\n"
        caller.sendall(b"x" * 100_000)
        try:
            rest = caller.recv(1_000)
        except ConnectionError:
            rest = b""
        assert rest == b""


def test_connections_beyond_the_limit_are_ended_and_the_others_stay(watching: Watching) -> None:
    """Each costs a descriptor. A watcher that was first is not disturbed."""
    with listening(ONE) as (found, target):
        watching.watch(target)
        callers = [
            socket.create_connection((target.host, target.port), timeout=30)
            for _ in range(MAX_CONNECTIONS + 5)
        ]
        wait_until(lambda: callers[-1].recv(1) == b"", lambda: "the last one was not ended")
        assert found.watchers == MAX_CONNECTIONS
        assert watching.peers.reached == 1
        for caller in callers:
            caller.close()
        wait_until(lambda: found.watchers == 1, lambda: "the ended ones are still counted")
        assert watching.deaths == []


def test_a_port_that_is_taken_is_logged_and_nothing_fails() -> None:
    """Take-over then takes as long as Kafka's session time-out."""
    with listening(ONE) as (_, target):
        other = peers(peer_port=target.port)
        assert other.listen(TWO) is None
        (call,) = other._log.calls  # type: ignore[attr-defined]
        assert call.args == ("peers_not_listening",)
        other.close()


def test_a_worker_that_is_switched_off_opens_no_socket() -> None:
    """`peer_watch = "off"` is for hosts that forbid it."""
    before, threads = len(list(Path("/proc/self/fd").iterdir())), set(threading.enumerate())
    off = peers(peer_watch="off")
    assert off.listen(ONE) is None
    off.watch([PeerTarget("a", TWO, "127.0.0.1", 1)], lambda _target: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert set(threading.enumerate()) <= threads
    off.close()


def test_the_other_workers_are_told_the_address_of_the_settings() -> None:
    """Behind NAT it is not where the process listens."""
    found = peers(peer_address="192.0.2.7")
    host, port = found.listen(ONE) or ("", 0)
    assert host == "192.0.2.7"
    assert port > 0
    found.close()


def test_a_forked_child_does_not_hide_the_death_of_its_parent(watching: Watching) -> None:
    """A handler may start one with multiprocessing, and it outlives a killed worker."""
    with listening_process(ONE, forks=True) as (child, target):
        watching.watch(target)
        child.kill()
        assert watching.death() == target

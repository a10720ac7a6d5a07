"""`PeerSockets`: the listener and the watched connections of a process, on one thread.

The thread waits in the kernel until a socket is ready or a retry is due, so it costs nothing while nothing happens. It
needs the interpreter for some microseconds. While a handler in a C library keeps the interpreter, this process greets
no peer and sees no end: its peers wait, because silence is not an end, and the second watcher of each process sees it.

The listener stays open as long as the process lives, whatever happens to the thread, because a closed one would look
like the end of the process.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from pipeline.config import KafkaSettings, WorkerSettings
from pipeline.core.peer_watch import PeerState, greeting
from pipeline.forks import call_in_children
from pipeline.peers.address import PeerPlace, place_of
from pipeline.peers.listener import Listener
from pipeline.peers.watcher import WatchedPeer
from pipeline.ports import Logger
from pipeline.ports.peers import PeerTarget

__all__ = ["PeerSockets"]

_JOIN_S = 2.0
UNREACHED_S = 30.0  # a peer that has not answered for this long is logged


class _Open:
    """What the thread waits on, and what wakes it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.hearing, self.waking = socket.socketpair()
        self.hearing.setblocking(False)
        self.waking.setblocking(False)

    def close(self) -> None:
        self.selector.close()
        self.hearing.close()
        self.waking.close()


class PeerSockets:
    """`ports.Peers`."""

    def __init__(self, kafka: KafkaSettings, worker: WorkerSettings, log: Logger) -> None:
        self._kafka = kafka
        self._worker = worker
        self._log = log
        self._open: _Open | None = None  # once it listens or watches; commands do neither
        self._listener: Listener | None = None
        self._peers: dict[PeerTarget, WatchedPeer] = {}
        self._lock = threading.Lock()
        self._wanted: tuple[frozenset[PeerTarget], Callable[[PeerTarget], None]] | None = None
        self._died: Callable[[PeerTarget], None] = _no_report
        self._reached = 0
        self._unreached: set[PeerTarget] = set()  # logged
        self._closing = False
        self._thread: threading.Thread | None = None
        call_in_children(self, PeerSockets._forked)

    def listen(self, process: str) -> tuple[str, int] | None:
        """Listen, unless the setting `peer_watch` is off. A port that cannot be had is logged."""
        if self._worker.peer_watch == "off":
            return None
        place: PeerPlace | None = None
        try:
            place = place_of(self._kafka, self._worker)
            self._listener = Listener(place, greeting(process), self._opened().selector)
        except OSError as error:
            where = f"{place.host}:{place.port}" if place is not None else "an address"
            self._log.warning(
                "peers_not_listening",
                reason=f"{where} cannot be listened to: {error.strerror or error}",
                hint="the others detect the end of this worker by Kafka's session time-out. "
                "Set worker.peer_host and worker.peer_port, or worker.peer_watch to 'off'",
            )
            return None
        self._start()
        return place.told_host, place.told_port or self._listener.port

    def watch(self, targets: Collection[PeerTarget], died: Callable[[PeerTarget], None]) -> None:
        """Watch these processes from now on."""
        if self._worker.peer_watch == "off":
            return
        with self._lock:
            self._wanted = frozenset(targets), died
        self._start()
        self._wake()

    @property
    def watchers(self) -> int:
        """The connections to the listener."""
        return self._listener.connections if self._listener is not None else 0

    @property
    def reached(self) -> int:
        """The watched processes that are connected and have answered."""
        return self._reached

    def close(self) -> None:
        """End the thread, and close all sockets."""
        self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                return  # it is a daemon, and its sockets end with the process
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self._reached = 0
        if self._listener is not None:
            self._listener.close()
        if self._open is not None:
            self._open.close()

    def _opened(self) -> _Open:
        if self._open is None:
            self._open = _Open()
        return self._open

    def _start(self) -> None:
        if self._thread is None:
            opened = self._opened()
            opened.selector.register(opened.hearing, selectors.EVENT_READ, self._woken)
            if self._listener is not None:
                self._listener.begin()
            self._thread = threading.Thread(
                target=self._run, args=(opened,), name="pipeline-peers", daemon=True
            )
            self._thread.start()

    def _wake(self) -> None:
        if self._open is not None:
            with suppress(OSError):  # it is full, so the thread is about to wake; or closed
                self._open.waking.send(b"\0")

    def _woken(self, _now_s: float) -> None:
        if self._open is not None:
            with suppress(BlockingIOError):
                self._open.hearing.recv(4096)

    def _run(self, opened: _Open) -> None:
        try:
            while not self._closing:
                self._turn(opened.selector)
        except Exception as error:  # noqa: BLE001 - the worker continues without its peers
            self._log.error("peers_stopped", error=type(error).__name__, message=str(error))

    def _turn(self, selector: selectors.BaseSelector) -> None:
        due_s = self._due_s()
        _serve(selector, None if due_s is None else max(0.0, due_s - time.monotonic()))
        if self._closing:
            return
        self._take_targets(selector)
        # A thread that was not run for a while must see the answers that have come before it gives up an attempt.
        _serve(selector, 0)
        now_s = time.monotonic()
        if self._listener is not None:
            self._listener.turn(now_s)
        for peer in self._peers.values():
            peer.turn(now_s)
        self._judge(now_s)

    def _due_s(self) -> float | None:
        due = [peer.due_s for peer in self._peers.values()]
        if self._listener is not None:
            due.append(self._listener.due_s)
        return min((at for at in due if at is not None), default=None)

    def _take_targets(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        targets, self._died = wanted
        now_s = time.monotonic()
        for target in self._peers.keys() - targets:
            self._peers.pop(target).close()
        for target in targets - self._peers.keys():
            self._peers[target] = WatchedPeer(target, selector, now_s)
        self._unreached &= targets

    def _judge(self, now_s: float) -> None:
        """Report the dead, each once: a dead peer stays in the list until it is no target any more."""
        reached = 0
        for target, peer in self._peers.items():
            if peer.view.state is PeerState.WATCHED:
                reached += 1
            elif peer.view.state is PeerState.DEAD and not peer.reported:
                peer.reported = True
                self._died(target)
            elif (
                peer.view.state is PeerState.UNMET
                and now_s - peer.since_s > UNREACHED_S
                and target not in self._unreached
            ):
                self._unreached.add(target)
                self._log.warning(
                    "peer_not_reached",
                    peer=target.worker,
                    reason=f"{target.host}:{target.port} does not answer",
                    hint="until it does, its end is detected by Kafka's session time-out. Allow TCP between the "
                    "workers, and set worker.peer_address if they reach it by another address",
                )
        self._reached = reached

    def _forked(self) -> None:
        """In a forked child: close the copies, which would keep connections open after the end of this process."""
        sockets = [self._open.hearing, self._open.waking] if self._open is not None else []
        if self._listener is not None:
            sockets += self._listener.sockets
        for peer in list(self._peers.values()):
            sockets += peer.sockets
        for each in sockets:
            each.close()


def _no_report(_target: PeerTarget) -> None:
    """Before the first targets, no end is reported."""


def _serve(selector: selectors.BaseSelector, timeout_s: float | None) -> None:
    for key, _ in selector.select(timeout_s):
        key.data(time.monotonic())

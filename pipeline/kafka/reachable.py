"""Checks before the first request of a client whether anything listens on the brokers' addresses, and waits for it.

The client alone retries for ten seconds before it reports an error. A refused connection and an unknown host name are
certain at once. All other failures, such as those of a slow network, are left to the client.

A program and its Kafka often start together, so a start waits for Kafka as long as its `StartupWait` allows.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pipeline.errors import UnreachableError
from pipeline.ports import Deadline, SystemClock

__all__ = ["NoWait", "StartupWait", "local_port", "require_listener", "wait_for_answer"]

_DEFAULT_PORT = 9092
_TIMEOUT_S = 2.0
_PAUSE_S = 0.25
_SERVER = re.compile(r"(?:\w+://)?(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


class StartupWait(Protocol):
    """How long the first request waits for Kafka, and the callbacks of that wait."""

    @property
    def seconds(self) -> float:
        """The longest wait in seconds; 0: do not wait."""

    def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
        """Called after each failed attempt, a few times a second."""

    def on_reachable(self, waited_s: float) -> None:
        """Called once when Kafka answers, if `on_unreachable` was called before."""

    def should_stop(self) -> bool:
        """Whether the program should stop. The wait then ends at once, as after a time-out."""


class NoWait:
    """`StartupWait` that does not wait."""

    seconds = 0.0

    def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
        """Do nothing."""

    def on_reachable(self, waited_s: float) -> None:
        """Do nothing."""

    def should_stop(self) -> bool:
        return False


def wait_for_answer(ask: Callable[[], None], wait: StartupWait) -> None:
    """Call `ask` until it does not raise UnreachableError. Raises the last one, with the waited seconds added."""
    deadline = Deadline(SystemClock(), wait.seconds, _PAUSE_S)
    attempts = 0
    while True:
        try:
            ask()
        except UnreachableError as error:
            waited_s = deadline.elapsed_s
            if deadline.has_passed() or wait.should_stop():
                if attempts:
                    text = f"{error.message}; waited {waited_s:.0f} s"
                    raise UnreachableError(text, hint=error.hint) from error
                raise
            attempts += 1
            wait.on_unreachable(error, waited_s)
            deadline.pause()
        else:
            if attempts:
                wait.on_reachable(deadline.elapsed_s)
            return


def require_listener(bootstrap_servers: str) -> None:
    """Return when one of the servers accepts a connection, or if that is not certain after two seconds.

    Raises UnreachableError with the reason for each server if none does.
    """
    servers = [_parse(text.strip()) for text in bootstrap_servers.split(",") if text.strip()]
    known = [server for server in servers if server is not None]
    if not known or len(known) < len(servers):
        return  # the client reports an address that it cannot parse
    answers: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()

    def try_server(at: int, host: str, port: int) -> None:
        answers.put((at, _refusal(host, port)))

    for at, server in enumerate(known):
        # Never joined, because a name lookup cannot be interrupted.
        threading.Thread(target=try_server, args=(at, *server), daemon=True).start()
    deadline_s = time.monotonic() + _TIMEOUT_S
    refusals: dict[int, str] = {}
    for _ in known:
        try:
            at, refusal = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return
        if refusal is None:
            return
        refusals[at] = refusal
    raise UnreachableError("; ".join(text for _, text in sorted(refusals.items())), hint=_hint(known))


def local_port(bootstrap_servers: str) -> int | None:
    """The port of the first server if it is on this machine, else None."""
    server = _parse(bootstrap_servers.partition(",")[0].strip())
    return server[1] if server is not None and _is_loopback(server[0]) else None


def _parse(server: str) -> tuple[str, int] | None:
    found = _SERVER.fullmatch(server)
    if found is None:
        return None
    return found["ipv6"] or found["host"], int(found["port"] or _DEFAULT_PORT)


def _refusal(host: str, port: int) -> str | None:
    """The reason why Kafka cannot be at this address; None if something listens there, or if that is uncertain."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return f"no Kafka at {where} (connection refused)"
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return f"no Kafka at {where} (the name {host} is not known)"
        return f"no Kafka at {where} (the name {host} cannot be looked up: {error.strerror})"
    except (OSError, OverflowError, UnicodeError):
        return None
    return None


def _hint(servers: list[tuple[str, int]]) -> str:
    if all(_is_loopback(host) for host, _ in servers):
        port = servers[0][1]
        start = "pipeline broker start" + (f" --port {port}" if port != _DEFAULT_PORT else "")
        return f"`{start}` starts one; or name another with --kafka or PIPELINE_KAFKA"
    return "check --kafka, PIPELINE_KAFKA, or bootstrap.servers in pipeline.toml, and that Kafka runs"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""The address at which a worker listens for its peers, and the one that it gives them.

By default both are the address from which this host reaches Kafka: the other workers reach Kafka, too, so this is the
network that they share. On one machine with a local Kafka it is 127.0.0.1, which no other host can connect to.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address

from pipeline.config import KafkaSettings, Settings, WorkerSettings, host_and_port

__all__ = ["PeerPlace", "http_address", "place_of"]

_KAFKA_PORT = 9092


@dataclass(frozen=True, slots=True)
class PeerPlace:
    """Where a process listens, and what it tells its peers. Port 0: a free one; `told_port` 0: that one."""

    host: str
    port: int
    told_host: str
    told_port: int


def place_of(kafka: KafkaSettings, worker: WorkerSettings) -> PeerPlace:
    """The place according to the settings. Raises OSError if no address is set and Kafka's name is not known."""
    told_host, told_port = host_and_port(worker.peer_address)
    host = worker.peer_host or _address_towards(kafka.bootstrap_servers)
    if not told_host:
        told_host = _address_towards(kafka.bootstrap_servers) if _is_wildcard(host) else host
    return PeerPlace(host, worker.peer_port, told_host, told_port)


def http_address(settings: Settings, port: int) -> tuple[str, int] | None:
    """Where other processes reach the HTTP port of this worker; None if that is not known.

    A port that listens on all addresses is told with the host of `peer_address`, or the address towards Kafka.
    """
    if not _is_wildcard(settings.http.host):
        return settings.http.host, port
    try:
        return place_of(settings.kafka, settings.worker).told_host, port
    except OSError:
        return None


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _address_towards(servers: str) -> str:
    """The local address of a route to one of these servers. A datagram socket that is connected sends nothing."""
    failure: OSError = OSError("no bootstrap server")
    for server in servers.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        try:
            found = socket.getaddrinfo(
                host.strip("[]") or server, port or _KAFKA_PORT, type=socket.SOCK_DGRAM
            )
        except OSError as error:
            failure = error
            continue
        for family, kind, protocol, _, address in found:
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.connect(address)
                    return str(probe.getsockname()[0])
            except OSError as error:
                failure = error
    raise failure

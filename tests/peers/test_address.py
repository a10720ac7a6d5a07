"""Where a worker listens for its peers, and what it tells them."""

from __future__ import annotations

from socket import gaierror

import pytest

from pipeline.config import KafkaSettings, WorkerSettings
from pipeline.errors import ConfigError
from pipeline.peers.address import PeerPlace, place_of


def place(servers: str = "127.0.0.1:9092", **settings: str | int) -> PeerPlace:
    return place_of(KafkaSettings(servers), WorkerSettings(**settings))  # type: ignore[arg-type]


def test_by_default_it_is_the_address_from_which_kafka_is_reached() -> None:
    """All workers reach Kafka, so they share this network. The first server may be unknown."""
    assert place() == PeerPlace("127.0.0.1", 0, "127.0.0.1", 0)
    assert place("PLAINTEXT://127.0.0.1:no-port,127.0.0.1:9092").host == "127.0.0.1"


def test_an_address_of_the_settings_is_used_and_told() -> None:
    """A host may have several networks."""
    assert place(peer_host="127.0.0.5", peer_port=7946) == PeerPlace("127.0.0.5", 7946, "127.0.0.5", 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
def test_every_address_is_listened_to_and_one_is_told(host: str) -> None:
    """No peer can connect to the unspecified address."""
    assert place(peer_host=host) == PeerPlace(host, 0, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("192.0.2.7", ("192.0.2.7", 0)),
        ("192.0.2.7:7946", ("192.0.2.7", 7946)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]:7946", ("2001:db8::7", 7946)),
    ],
)
def test_behind_nat_another_address_is_told(text: str, told: tuple[str, int]) -> None:
    """The process listens where it can, and the others connect to what the gateway forwards."""
    found = place(peer_address=text)
    assert (found.told_host, found.told_port) == told
    assert found.host == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "192.0.2.7:",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "192.0.2.7:x",
        ":7946",
        "[::1",
        "[::1]7",
        "1.2.3",
    ],
)
def test_what_is_not_an_address_is_refused_at_the_start(text: str) -> None:
    """The others would try a wrong address forever."""
    with pytest.raises(ConfigError, match="peer_address"):
        WorkerSettings(peer_address=text)


def test_an_unknown_kafka_is_an_error_of_the_system() -> None:
    """The listener logs it, and the worker continues."""
    with pytest.raises(gaierror):
        place("127.0.0.1:no-port")

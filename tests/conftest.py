"""What every test may ask for: a real Kafka, and names that no other test uses.

`--kafka` says which Kafka: nothing for one of our own (started when the first test asks, stopped at the end),
`HOST:PORT` for one that runs already, `container` for one in a container.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka, cache_dir

_IMAGE = "apache/kafka:4.3.1"
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class KafkaUnderTest:
    """The Kafka that the tests use."""

    bootstrap_servers: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kafka`."""
    parser.addoption(
        "--kafka",
        default="",
        metavar="HOST:PORT|container",
        help="the Kafka to test on: one that runs, or a container; without it, one is started",
    )


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaUnderTest]:
    """A Kafka for the whole session. Tests share it: take names from `unique_name`."""
    choice = str(request.config.getoption("--kafka"))
    if choice == "container":
        with _container() as servers:
            yield KafkaUnderTest(servers)
    elif choice:
        _require_open(choice)
        yield KafkaUnderTest(choice)
    else:
        _sweep()
        data_dir = _test_brokers() / str(os.getpid())
        with LocalKafka(data_dir) as own:
            yield KafkaUnderTest(own.bootstrap_servers)
        shutil.rmtree(data_dir)


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> str:
    """A prefix for topics, groups and transactional ids, different in every run of every test."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _test_brokers() -> Path:
    return cache_dir() / "test-brokers"


def _sweep() -> None:
    """End the brokers of test runs that were killed before they could: their directory names their process."""
    for left in _test_brokers().glob("[0-9]*"):
        if not Path(f"/proc/{left.name}").exists():
            LocalKafka(left).stop()
            shutil.rmtree(left, ignore_errors=True)


def _require_open(servers: str) -> None:
    host, _, port = servers.split(",", maxsplit=1)[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        pytest.exit(f"--kafka {servers}: nothing answers there ({error})", returncode=4)


@contextmanager
def _container() -> Iterator[str]:
    try:
        from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - only this choice needs it

        container = KafkaContainer(_IMAGE).with_kraft()
        container.start()
    except Exception as error:  # noqa: BLE001 - each engine fails in its own way; all mean the same
        pytest.exit(f"--kafka container: no container could be started ({error})", returncode=4)
    try:
        yield str(container.get_bootstrap_server())
    finally:
        container.stop()

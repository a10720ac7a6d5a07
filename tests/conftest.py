"""What every test may ask for: a real Kafka, and names that no other test uses.

`--kafka` says which Kafka: nothing for one of our own (started when the first test asks, stopped at the end),
`HOST:PORT` for one that runs already, `container` for one in a container, of the image that `KAFKA_IMAGE` names.
`--kafka-version` starts another release than that of `pipeline broker`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings

from pipeline.broker import LocalKafka, cache_dir
from pipeline.broker.install import Lock, read_lock
from pipeline.broker.ports import choose_ports
from pipeline.broker.reporting import BrokerError
from pipeline.broker.state import new_cluster_id
from pipeline.broker.wire import view_of
from tests.support.ports import take_turns

take_turns()

_IMAGE = os.environ.get("KAFKA_IMAGE", "apache/kafka:4.4.0")
_CONNECT_S = 5.0
_CONTAINER_S = 60.0

# Hundreds of processes are started by tests: where nothing compiled may lie beside the sources, it lies elsewhere.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(cache_dir() / "compiled-for-tests"))

# Random tests: quick and different at each run for a person, the same at each run where $CI is set.
settings.register_profile(
    "person", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("person"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "person")


@dataclass(frozen=True, slots=True)
class KafkaUnderTest:
    """The Kafka that the tests use."""

    bootstrap_servers: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kafka` and `--kafka-version`."""
    parser.addoption(
        "--kafka",
        default="",
        metavar="HOST:PORT|container",
        help="the Kafka to test on: one that runs, or a container; without it, one is started",
    )
    parser.addoption(
        "--kafka-version",
        default="",
        metavar="VERSION",
        help="start this release, of tests/kafka-VERSION.lock.json, instead of that of `pipeline broker`",
    )


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say which signal has ended a test process; pytest-xdist says only that it has ended."""
    if error:
        code = node.gateway._io.popen.wait(_CONNECT_S)
        print(f"\n{node.gateway.id}: exit status {code}; negative is a signal")  # noqa: T201 - to the terminal


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need the real Kafka come first: they are the long ones.

    Several processes take one file after the other, so the last to be begun should be a short one.
    """
    real = {item.path for item in items if item.get_closest_marker("kafka")}
    items.sort(key=lambda item: item.path not in real)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take back how a command that ran in this process has configured the log, for all tests that follow here."""
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in list(root.handlers):
        if type(handler).__module__.startswith("pipeline."):
            root.removeHandler(handler)


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
        from tests.support.kafka.coordinators import elect_coordinators  # noqa: PLC0415 - most tests need no client

        _sweep()
        data_dir = broker_directory()
        with LocalKafka(data_dir, lock=_other_release(request.config)) as own:
            elect_coordinators(own.bootstrap_servers)
            yield KafkaUnderTest(own.bootstrap_servers)
        shutil.rmtree(data_dir)


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> str:
    """A prefix for topics, groups and transactional ids, different in every run of every test."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _other_release(config: pytest.Config) -> Lock | None:
    version = str(config.getoption("--kafka-version"))
    if not version:
        return None
    return read_lock((Path(__file__).parent / f"kafka-{version}.lock.json").read_bytes())


def broker_directory(use: str = "") -> Path:
    """Where this process keeps the data of a broker. A later run ends the brokers of processes that were killed."""
    return _test_brokers() / f"{use and f'{use}-'}{os.getpid()}"


def _test_brokers() -> Path:
    return cache_dir() / "test-brokers"


def _sweep() -> None:
    """End the brokers of test runs that were killed before they could: their directory names their process."""
    for left in _test_brokers().glob("*[0-9]"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            with suppress(BrokerError):  # another run has just ended it, and removed its directory
                LocalKafka(left).stop()
            shutil.rmtree(left, ignore_errors=True)


def _require_open(servers: str) -> None:
    host, _, port = servers.partition(",")[0].rpartition(":")
    if not port.isdigit() or view_of(int(port), host=host, timeout_s=_CONNECT_S) is None:
        pytest.exit(f"--kafka {servers}: no Kafka answers there in the clear", returncode=4)


@contextmanager
def _container() -> Iterator[str]:
    port = choose_ports(1)[0]
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only this choice needs it

        container = DockerContainer(_IMAGE)
    except Exception as error:  # noqa: BLE001 - each engine fails in its own way; all mean the same
        _no_container(error)
    try:
        # Kafka names its own address to clients, so the address and the port outside are chosen before it starts.
        host = container.get_docker_client().host().replace("localhost", "127.0.0.1")
        ports: dict[str, Any] = container.ports  # typed for a port alone; Docker takes an address with it
        ports[f"{port}/tcp"] = ("127.0.0.1", port) if host == "127.0.0.1" else port
        try:
            # By this label tests/containers finds, and removes, what a killed run has left.
            container.with_kwargs(labels={"io.podman.compose.project": f"pipeline-test-{os.getpid()}"})
            container.with_envs(**_container_settings(port, host)).start()
        except Exception as error:  # noqa: BLE001 - as above
            _no_container(error)
        deadline = time.monotonic() + _CONTAINER_S
        while view_of(port, host=host) is None:
            container.reload()
            if container.status == "exited" or time.monotonic() >= deadline:
                said = b"".join(container.get_logs()).decode(errors="replace")[-2_000:]
                pytest.exit(f"--kafka container: {_IMAGE} does not serve\n{said}", returncode=4)
            time.sleep(0.2)
        yield f"{host}:{port}"
    finally:
        container.stop()


def _no_container(error: Exception) -> NoReturn:
    pytest.exit(f"--kafka container: no container could be started ({error})", returncode=4)


def _container_settings(port: int, host: str) -> dict[str, str]:
    return {
        "CLUSTER_ID": new_cluster_id(),
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@localhost:{port + 1}",
        "KAFKA_LISTENERS": f"CLIENT://0.0.0.0:{port},CONTROLLER://localhost:{port + 1}",
        "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://{host}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "CLIENT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }

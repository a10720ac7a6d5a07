"""One of three nodes is killed, and another one takes over its requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings
from pipeline.errors import UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.wire import coordinator_of
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.outage,
    pytest.mark.timeout(300),  # time for three starts and a restart on a busy machine
]

AT_A_TIME = 50
BEFORE_THE_KILL = 500
NO_ANSWER_S = 2.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A separate cluster, because its nodes are killed. Each test starts them again."""
    with LocalKafka(tmp_path_factory.mktemp("three-nodes"), nodes=3) as cluster:
        yield cluster


@contextmanager
def _input_flows(bench: Workbench) -> Iterator[None]:
    """Send inputs continuously, so that a transaction is always in progress."""
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            bench.send(AT_A_TIME)

    sender = threading.Thread(target=send, name="sender")
    sender.start()
    try:
        yield
    finally:
        enough.set()
        sender.join()


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, lambda: what, DEADLINE_S)


def test_a_transaction_coordinator_that_is_killed_leaves_outputs_and_tables_exact(
    cluster: LocalKafka, tmp_path: Path, unique_name: str
) -> None:
    """Its successor must complete the transactions that were open, prepared or decided, from a replicated log."""
    servers, prefix = cluster.bootstrap_servers, unique_name[-40:].strip("-")
    with closing(Workbench(servers, prefix, tmp_path, partitions=5, tasks=2)) as bench:
        bench.send(AT_A_TIME)
        worker = bench.worker("--commit-interval-ms", "5")
        bench.wait_for_outputs(worker)
        with _input_flows(bench):
            bench.wait_for_outputs(worker, at_least=BEFORE_THE_KILL)
            node = coordinator_of(servers, f"{prefix}.main.0")
            cluster.kill(node)
            _wait_until(
                lambda: coordinator_of(servers, f"{prefix}.main.0") not in {node, -1}, "another coordinator"
            )
            bench.wait_for_outputs(worker, at_least=len(bench.sent))
        bench.wait_for_outputs(worker)
        assert cluster.start() is True
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.send(AT_A_TIME)
        bench.finish()


def test_an_admin_client_continues_while_the_broker_that_it_chose_is_away(
    cluster: LocalKafka, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself the client would wait for that broker forever on a whole core, although two others can answer."""
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", NO_ANSWER_S)
    with closing(KafkaCluster(KafkaSettings(cluster.bootstrap_servers))) as client:
        client.create([TopicSpec(unique_name, 3)])

        def answers() -> bool:
            try:
                return bool(client.describe([unique_name]))
            except UnreachableError:
                return False

        def waits_in_vain() -> bool:
            started = time.monotonic()
            return not answers() and time.monotonic() - started >= NO_ANSWER_S

        cluster.kill(1)
        # Until the session of the dead node ends, the others also name it as the controller.
        _wait_until(waits_in_vain, "the client to choose the dead node")
        _wait_until(answers, "the client to choose another")
        assert cluster.start() is True

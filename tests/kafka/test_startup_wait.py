"""Programs that start before their Kafka: they wait, log it, and begin when Kafka answers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config import KafkaSettings
from pipeline.errors import UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.reachable import NoWait
from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.late_listener import LateListener
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def late(kafka: KafkaUnderTest) -> Iterator[LateListener]:
    """An address at which Kafka becomes reachable later."""
    listener = LateListener(kafka.bootstrap_servers)
    yield listener
    listener.close()


def _wait_for_log(bench: Workbench, text: str) -> None:
    wait_until(lambda: text in bench.log.read_text(), lambda: f"{text!r} in\n{bench.log.read_text()}")


def test_a_worker_that_is_started_first_waits_for_kafka(bench: Workbench, late: LateListener) -> None:
    """Containers start in any order, and a container that exits is restarted with increasing delays."""
    bench.send(20)
    worker = bench.worker("--kafka", late.servers)
    _wait_for_log(bench, "kafka_unreachable")
    assert "The worker retries for up to 60 s (kafka.startup_wait_s)" in bench.log.read_text()
    late.open()
    bench.wait_for_outputs(worker)
    assert "kafka_reachable" in bench.log.read_text()
    assert bench.stop(worker) == 0


def test_a_worker_that_waits_for_kafka_hears_sigterm(bench: Workbench, late: LateListener) -> None:
    """The worker has no work in progress, so it must stop at once."""
    bench.environment["PIPELINE_KAFKA_STARTUP_WAIT_S"] = "600"
    worker = bench.worker("--kafka", late.servers)
    _wait_for_log(bench, "kafka_unreachable")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(DEADLINE_S) == 0
    assert "error:" not in bench.log.read_text()


def test_a_listener_without_a_kafka_behind_it_is_waited_for(
    late: LateListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container engine accepts connections on a published port before the broker listens."""
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", 1.0)
    late.open(carries=False)

    class Wait(NoWait):
        seconds = DEADLINE_S

        def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
            late.carries = True

    with closing(KafkaCluster(KafkaSettings(late.servers), Wait())) as cluster:
        assert cluster.cluster_id()
    assert late.carries


def test_a_command_that_is_started_first_waits_for_kafka(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, late: LateListener
) -> None:
    """`topics apply` and loads are jobs of a deployment, and may start together with Kafka."""
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / f"{unique_name}.yaml").write_text(
        f"name: {unique_name}\npartitions: 1\nowner: tests\nkey: none\nvalue: none\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "topics", "apply", "--yes", "--kafka", late.servers],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stderr is not None
        first = child.stderr.readline()
        late.open()
        rest = child.stderr.read()
        assert child.wait(DEADLINE_S) == 0, rest
    assert first == f"no Kafka at {late.servers} (connection refused): retrying for up to 10 s\n"
    assert "Kafka is reachable after " in rest

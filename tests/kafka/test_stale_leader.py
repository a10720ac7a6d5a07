"""One of three nodes loses its controllers and continues to answer clients as the leader.

Meanwhile workers are killed and start on empty disks, commits renew their producers, and a load is repeated. Readers
that connect to that node see stale journals and receipts. `make test-stale-leader` runs the test twenty times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings
from pipeline.core.names import LOADS_TOPIC
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.harness import Workbench
from tests.support.stale_leader import active_controller, leader_of, may_trace, stale_leader

pytestmark = [pytest.mark.kafka, pytest.mark.outage, pytest.mark.timeout(1_200)]

RUNS = int(os.environ.get("STALE_LEADER_RUNS", "1"))
PARTITIONS, TASKS = 12, 6
ROWS = 4_000
TRIES = 5
# A producer that writes to the stale leader times out after 15 s, and its successor may connect to the same node.
WITHIN_S = 240.0
UNREACHABLE = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A separate cluster."""
    if not may_trace():
        assert not os.environ.get("CI"), "stopping threads of a broker takes root"
        pytest.skip("stopping threads of a broker takes root")
    with LocalKafka(tmp_path_factory.mktemp("stale-leader"), nodes=3) as cluster:
        yield cluster


class Loads:
    """`pipeline produce` of one file in many transactions, and the rows in the topic."""

    def __init__(self, bench: Workbench, directory: Path) -> None:
        self._bench = bench
        self._topic = f"{bench.prefix}-rows"
        self._file = directory / f"{bench.prefix}.csv"
        with closing(KafkaCluster(KafkaSettings(bench.servers))) as cluster:
            cluster.create([TopicSpec(self._topic, 3)])

    def run(self, rows: int) -> None:
        """Load the first rows of the file. Rows that are already loaded are not loaded again."""
        self._file.write_text("key,n\n" + "".join(f"k{n % 50},{n}\n" for n in range(rows)))
        for _ in range(TRIES):
            done = self._bench.command(
                "produce", self._topic, str(self._file), "--key", "key", "--batch", "200",
                "--name", self._bench.prefix, "--kafka", self._bench.servers,
            )  # fmt: skip
            if (
                done.returncode != UNREACHABLE
            ):  # a coordinator may be moving, or the stale leader may be asked for it
                break
        assert done.returncode == 0, done.stderr

    def check(self) -> None:
        """Check that each row is in the topic once."""
        done = self._bench.command("consume", self._topic, "--json", "--kafka", self._bench.servers)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == ROWS


def _led_by_others(cluster: LocalKafka) -> int:
    """The leader of the receipts topic, which is recreated until its leader is not the active controller."""
    servers = cluster.bootstrap_servers
    with closing(KafkaCluster(KafkaSettings(servers))) as client:
        for _ in range(30):
            client.create([TopicSpec(LOADS_TOPIC, 1, config={"cleanup.policy": "compact"})])
            leader = leader_of(servers, LOADS_TOPIC, 0)
            if leader not in {active_controller(cluster), -1}:
                return leader
            client.delete([LOADS_TOPIC])
    raise AssertionError("the active controller leads the receipts each time")


@pytest.mark.parametrize("run", range(RUNS))
def test_a_stale_leader_that_answers_costs_no_record(
    cluster: LocalKafka, run: int, tmp_path: Path, unique_name: str
) -> None:
    """The fence reaches a healthy coordinator, but a read after it may still be answered by the old leader."""
    servers, prefix = cluster.bootstrap_servers, f"{unique_name[-36:].strip('-')}-{run}"
    node = _led_by_others(cluster)
    with (
        closing(Workbench(servers, prefix, tmp_path, partitions=PARTITIONS, tasks=TASKS)) as bench,
        ExitStack() as outage,
    ):
        loads = Loads(bench, tmp_path)
        loads.run(ROWS // 2)
        bench.send(600)
        worker = bench.worker()
        bench.wait_for_outputs(worker)
        bench.senders = outage.enter_context(stale_leader(cluster, node, LOADS_TOPIC, 0))
        loads.run(ROWS)
        bench.send(600)
        bench.wait_for_outputs(worker, within_s=WITHIN_S)
        for _ in range(4):
            loads.run(ROWS)
        for number in range(2):
            worker.kill()
            worker.wait()
            bench.state_dir = tmp_path / f"disk-{number}"  # an empty disk
            if number:  # each commit counts as slow, so a renewal follows it
                bench.environment["PIPELINE_RETRY_BACKOFF_MS"] = "2"
            worker = bench.worker()
            bench.send(100)
            bench.wait_for_outputs(worker, within_s=WITHIN_S)
        loads.run(ROWS)
        outage.close()
        bench.senders = servers
        # A worker that stops while it reads from the stale leader gives up, and says so with its exit code.
        bench.send(600)
        bench.wait_for_outputs(worker, within_s=WITHIN_S)
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.send(100)
        bench.finish()
        loads.check()
        assert "task_failed" not in bench.log.read_text()

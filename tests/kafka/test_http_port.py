"""The HTTP port of real workers, compared with what is in Kafka, read by a plain client."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from pipeline.broker.ports import is_free
from pipeline.processes.system import Demand
from tests.conftest import KafkaUnderTest
from tests.support.http.scrape import Scrape
from tests.support.kafka.harness import DEADLINE_S, STARTS_S, Workbench
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

SENT = 300
APP = "tests.support.kafka.sums:app"


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """One group of two tasks."""
    workbench = Workbench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, groups=("main",))
    yield workbench
    workbench.close()


@pytest.fixture
def port() -> int:
    """Two free ports in a row; the first one."""
    while not is_free((first := free_port()) + 1):
        pass
    return first


def ask(port: int, path: str) -> tuple[int, str]:
    """(status, body); (0, "") if the port is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def scrape(port: int) -> Scrape:
    status, text = ask(port, "/metrics")
    assert status == 200
    return Scrape(text)


def ready(bench: Workbench, port: int) -> None:
    wait_until(
        lambda: ask(port, "/readyz")[0] == 200, lambda: f"{ask(port, '/readyz')}\n{bench.log.read_text()}"
    )


def in_kafka(bench: Workbench, topic: str) -> tuple[int, int]:
    """(records, bytes of values) that a reader of committed records sees in a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bench.servers,
            "group.id": "raw",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    with closing(consumer):
        consumer.assign([TopicPartition(topic, number, 0) for number in range(bench.partitions)])
        records, size, ended = 0, 0, set[int | None]()
        while len(ended) < bench.partitions:
            for message in consumer.consume(1_000, 0.1):
                error = message.error()
                if error is None:
                    records += 1
                    size += len(message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    assert error.retriable(), error
        return records, size


def test_a_scrape_agrees_with_kafka_and_with_the_files(bench: Workbench, port: int) -> None:
    """Each figure that an operator acts on, from a real worker; then again after a kill and a lost disk."""
    bench.send(SENT)
    worker = bench.worker("--http-port", str(port))
    wait_until(lambda: ask(port, "/livez")[0] == 200, bench.log.read_text)
    bench.wait_for_outputs(worker)
    ready(bench, port)
    wait_until(
        lambda: (
            scrape(port).sum("pipeline_records_total", outcome="handled") == SENT
            and scrape(port).sum("pipeline_input_lag_records", topic=f"{bench.prefix}-amounts") == 0
        ),
        lambda: ask(port, "/metrics")[1],
    )
    journal = f"{bench.prefix}.main.journal"
    entries, size = in_kafka(bench, journal)
    found = scrape(port)
    assert found.sum("pipeline_outputs_total") == in_kafka(bench, f"{bench.prefix}-sums")[0] == SENT
    assert found.sum("pipeline_commits_total", result="committed") == entries - bench.partitions  # genesis
    assert found.value("pipeline_commit_seconds_count") == entries - bench.partitions
    assert found.sum("pipeline_journal_bytes") == size
    assert found.sum("pipeline_task_phase", phase="live") == bench.partitions
    assert found.value("pipeline_workers") == 1
    assert found.sum("pipeline_rocksdb_memtable_bytes") > 0
    assert found.value("pipeline_restore_seconds_count") == bench.partitions
    assert found.value("process_open_fds") <= Demand(bench.partitions, 1, 1, http=True).descriptors
    status, text = ask(port, "/api/status")
    assert status == 200
    document = json.loads(text)
    # The same argument as the worker's: the commands in the hints name it.
    told = json.loads(bench.command("status", APP, "--kafka", bench.servers, "--json").stdout)
    assert document == told
    assert sum(sum(task["positions"].values()) for task in document["tasks"]) == SENT
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert ask(port, "/livez")[0] == 0
    bench.send(SENT)
    _restored_from_the_journal(bench, port, entries)


def _restored_from_the_journal(bench: Workbench, port: int, entries: int) -> None:
    """Start a worker on an empty disk, which replays the journal; compare what it tells."""
    bench.state_dir = bench.state_dir.with_name("empty")
    worker = bench.worker("--http-port", str(port))
    bench.wait_for_outputs(worker)
    ready(bench, port)
    live = [json.loads(line) for line in bench.log.read_text().splitlines() if '"task_live"' in line]
    restored = [line for line in live if line["replayed_entries"] > 1]
    assert sum(line["replayed_entries"] for line in restored) == entries
    wait_until(
        lambda: scrape(port).sum("pipeline_records_total", outcome="handled") == SENT,
        lambda: ask(port, "/metrics")[1],
    )
    found = scrape(port)
    # The log rounds to a millisecond.
    seconds = sum(line["restore_s"] for line in restored)
    assert found.value("pipeline_restore_seconds_sum") == pytest.approx(seconds, abs=0.002)
    assert found.value("pipeline_restore_seconds_count") == bench.partitions
    assert found.values("pipeline_restore_remaining_bytes") == []
    assert found.sum("pipeline_tasks_moved_total") == 0  # the same worker has them again
    assert bench.stop(worker) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()


def test_each_process_has_a_port_and_a_taken_one_is_a_warning(bench: Workbench, port: int) -> None:
    """Several processes on one host are the usual case, and a port must not stop any of them."""
    bench.send(SENT)
    with closing(socket.create_server(("127.0.0.1", port + 1))):
        supervisor = bench.worker("--processes", "2", "--worker-id", "w", "--http-port", str(port))
        bench.wait_for_outputs(supervisor, within_s=STARTS_S)
        ready(bench, port)
        wait_until(lambda: scrape(port).value("pipeline_workers") == 2, bench.log.read_text)
    warnings = [json.loads(line) for line in bench.log.read_text().splitlines() if "http_port_" in line]
    assert [(line["worker"], line["port"]) for line in warnings] == [("w-2", port + 1)]
    assert bench.stop(supervisor) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()
    assert ask(port, "/livez")[0] == 0

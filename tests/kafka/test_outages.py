"""Kafka becomes unreachable and reachable again: the worker logs it, waits, resumes by itself, and stays exact.

The long outages have the mark `outage` and run with `make test-outages`. The short ones use the same code paths,
because their transactions time out earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka
from tests.support.kafka.troubled_harness import TroubledBench

pytestmark = pytest.mark.kafka

QUICK = {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
INPUTS = 10_000
SMALL_COMMITS = {"PIPELINE_MAX_RECORDS_PER_COMMIT": "50", "PIPELINE_MAX_POLL_RECORDS": "50"}


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A separate Kafka, because the tests kill it."""
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as own:
        yield own


@pytest.fixture
def bench(own_kafka: LocalKafka, unique_name: str, tmp_path: Path) -> Iterator[TroubledBench]:
    """The topics, the state directory and the processes of one test."""
    own_kafka.start()  # an earlier test may have killed it
    name = unique_name[-40:].strip("-")
    made = TroubledBench(own_kafka.bootstrap_servers, name, tmp_path, partitions=5, tasks=2)
    made.environment = dict(SMALL_COMMITS)  # for many commits, so that the outage interrupts them
    yield made
    made.close()


def _goes_away_in_mid_stream(bench: TroubledBench, own_kafka: LocalKafka, seconds: float) -> None:
    bench.send(INPUTS)
    worker = bench.worker("--commit-interval-ms", "20")
    bench.wait_for_outputs(worker, at_least=1_000)
    own_kafka.kill()
    away = bench.wait_for_event("kafka_unreachable", seconds=seconds)
    assert "The worker waits and resumes by itself; no data is lost" in away["hint"]
    assert worker.poll() is None
    own_kafka.start()
    bench.send(100)
    bench.settle(worker)
    back = bench.wait_for_event("kafka_reachable")
    assert back["unreachable_s"] >= seconds
    assert bench.events("task_failed") == []
    lines = bench.log.read_text().count("Connection refused")
    assert lines < 100 + seconds, "the Kafka client's own complaints hide everything else"


def test_kafka_away_in_mid_stream_is_said_and_waited_for(bench: TroubledBench, own_kafka: LocalKafka) -> None:
    """Brokers restart regularly, and an operator must not have to restart the workers."""
    bench.environment |= QUICK
    _goes_away_in_mid_stream(bench, own_kafka, 0)


@pytest.mark.outage
def test_an_outage_longer_than_a_transaction_may_last_is_survived(
    bench: TroubledBench, own_kafka: LocalKafka
) -> None:
    """The broker aborts the transaction and fences its producer, although no other worker has the task."""
    bench.environment |= QUICK | {"PIPELINE_TRANSACTION_TIMEOUT_MS": "2000"}
    _goes_away_in_mid_stream(bench, own_kafka, 5)
    assert bench.events("commit_aborted") + bench.events("task_restarting") + bench.events("task_fenced")


@pytest.mark.outage
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [30, 300])
def test_a_real_outage_is_waited_for(bench: TroubledBench, own_kafka: LocalKafka, seconds: int) -> None:
    """With default settings, an outage may be much longer than all time-outs."""
    _goes_away_in_mid_stream(bench, own_kafka, seconds)


@pytest.mark.outage
def test_a_worker_that_is_stopped_in_an_outage_says_what_it_could_not_do_and_loses_nothing(
    bench: TroubledBench, own_kafka: LocalKafka
) -> None:
    """A deployment does not wait for Kafka, and the next start must process what was not committed."""
    bench.environment |= QUICK | {"PIPELINE_STOP_TIMEOUT_S": "2"}
    bench.send(INPUTS)
    worker = bench.worker("--commit-interval-ms", "20")
    bench.wait_for_outputs(worker, at_least=1_000)
    own_kafka.kill()
    bench.wait_for_event("kafka_unreachable")
    assert bench.stop(worker) == 1
    text = bench.log.read_text()
    assert "the worker could not commit its open work within 2 s, and has stopped" in text
    assert "It resumes after the last commit; no data is lost" in text
    own_kafka.start()
    bench.finish()

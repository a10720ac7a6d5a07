"""A record whose handler crashes the process natively, on real worker processes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.records import partition_of
from tests.conftest import KafkaUnderTest
from tests.support.kafka.fleet_harness import FleetBench
from tests.support.kafka.harness import DEADLINE_S, PARTITIONS, STARTS_S, Workbench
from tests.support.kafka.producing import ordered_producer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

APP = "tests.support.kafka.native:app"


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """One group of two tasks; the first one receives the record."""
    workbench = Workbench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, groups=("main",))
    workbench.send(40)
    producer = ordered_producer(kafka.bootstrap_servers)
    producer.produce(f"{workbench.prefix}-amounts", b'{"n":-1}', b"poison", partition=0)
    assert producer.flush(DEADLINE_S) == 0
    workbench.send(40)
    yield workbench
    workbench.close()


def test_a_record_that_crashes_is_found_and_kills_condemn_none(bench: Workbench) -> None:
    """Otherwise each successor crashes at it. A SIGKILL for lack of memory must not count against the record."""
    bench.environment["ON_ERROR"] = "dead_letter"
    for _ in range(3):
        assert _run_to_its_end(bench, "kill") == -signal.SIGKILL
    assert not _said(bench, "previous_process_crashed")
    assert len(_said(bench, "previous_process_ended")) == 2
    for _ in range(3):
        assert _run_to_its_end(bench, "segv") == -signal.SIGSEGV
    worker = _start(bench, "segv")
    bench.wait_for_outputs(worker, at_least=80)
    assert bench.stop(worker) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()
    (rejected,) = _said(bench, "record_rejected")
    assert rejected["policy"] == "dead_letter"
    crashes = _said(bench, "previous_process_crashed")
    assert [line["crashes"] for line in crashes] == [1, 2, 3]
    assert {line["thread"] for line in crashes} == {"processing"}
    assert f"{rejected['topic']}[{rejected['partition']}] offset {rejected['offset']}" in str(
        crashes[-1]["handling"]
    )
    assert "in crash" in str(crashes[-1]["stack"])
    shown = bench.command("deadletters", "show", APP, "--kafka", bench.servers)
    assert "in crash" in shown.stdout, shown.stderr


def test_under_stop_only_the_task_of_the_record_ends(bench: Workbench) -> None:
    """The supervisor starts the process again; the other task continues, and the error names the record.

    Python's own fatal error leaves no trace on the disk: it is the supervisor that saw SIGABRT.
    """
    bench.environment["CRASH"] = "fatal"
    supervisor = bench.worker("--processes", "1", "--commit-interval-ms", "20", app=APP)
    wait_until(lambda: _said(bench, "task_failed"), bench.log.read_text, STARTS_S)
    (failed,) = _said(bench, "task_failed")
    assert f"{bench.prefix}-amounts[0] offset" in str(failed["message"])
    assert "crashed natively 3 times" in str(failed["message"])
    assert "runbooks/native-crash.md" in str(failed["hint"])
    bench.send(40)
    wait_until(
        lambda: _of_partition_1(bench.outputs()) == _of_partition_1(bench.expected()), bench.log.read_text
    )
    assert bench.stop(supervisor) == 1
    reasons = [line["reason"] for line in _said(bench, "previous_process_crashed")]
    assert reasons == ["SIGABRT, seen by the supervisor"] * 3


@pytest.mark.kills
def test_another_worker_continues_the_count(bench: Workbench) -> None:
    """Without the count of the first worker, each new worker would crash as often as the limit again."""
    bench.environment["ON_ERROR"] = "skip"
    for _ in range(2):
        assert _run_to_its_end(bench, "segv", "--worker-id", "one") == -signal.SIGSEGV
    other = ("--worker-id", "two", "--state-dir", str(bench.state_dir / "two"))
    for _ in range(2):  # the first start waits until Kafka has removed worker one from the group
        assert _run_to_its_end(bench, "segv", *other) == -signal.SIGSEGV
    worker = _start(bench, "segv", *other)
    bench.wait_for_outputs(worker, at_least=80)
    assert bench.stop(worker) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()
    assert [line["worker"] for line in _said(bench, "record_rejected")] == ["two"]


@pytest.mark.kills
@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_the_limit_holds_while_peers_hand_the_record_from_owner_to_owner(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, on_error: str
) -> None:
    """A successor takes the task over, and crashes, before the worker that crashed first can count it."""
    fleet = FleetBench.with_topics(kafka.bootstrap_servers, unique_name, tmp_path, 6, 3)
    fleet.app, bench = APP, fleet.bench
    bench.environment = {"ON_ERROR": on_error, "CRASH": "segv", "SUMS_TASKS": "3"}
    try:
        workers = [fleet.start(name, supervised=True) for name in ("a", "b", "c")]
        bench.send(60)
        wait_until(lambda: sum(len(each.live_tasks()) for each in workers) == 3, fleet.story)
        producer = ordered_producer(kafka.bootstrap_servers)
        producer.produce(f"{bench.prefix}-amounts", b'{"n":-1}', b"poison", partition=4)
        assert producer.flush(DEADLINE_S) == 0
        event = "record_rejected" if on_error == "skip" else "partition_stopped"
        wait_until(lambda: any(each.events(event) for each in workers), fleet.story)
        bench.send(60)
        expected = {
            key: values
            for key, values in bench.expected().items()
            if on_error == "skip" or partition_of(key.encode(), 6) != 4
        }
        wait_until(
            lambda: {key: values for key, values in bench.outputs().items() if key in expected} == expected,
            fleet.story,
        )
        crashes = sum(len(each.events("previous_process_crashed")) for each in workers)
        assert 3 <= crashes <= 3 + len(workers), fleet.story()
        assert sum(len(each.events("peer_died")) for each in workers) > 0
        for each in workers:
            each.child.send_signal(signal.SIGTERM)
            each.child.wait(DEADLINE_S)
    finally:
        fleet.close()


def _of_partition_1(outputs: dict[str, list[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    return {key: values for key, values in outputs.items() if partition_of(key.encode(), PARTITIONS) == 1}


def _start(bench: Workbench, how: str, *arguments: str) -> subprocess.Popen[bytes]:
    bench.environment["CRASH"] = how
    return bench.worker("--commit-interval-ms", "20", *arguments, app=APP)


def _run_to_its_end(bench: Workbench, how: str, *arguments: str) -> int:
    return _start(bench, how, *arguments).wait(DEADLINE_S)


def _said(bench: Workbench, event: str) -> list[dict[str, object]]:
    lines = []
    for line in bench.log.read_text().splitlines():
        if line.startswith("{") and f'"{event}"' in line:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # the line is incomplete
    return [line for line in lines if line.get("event") == event]

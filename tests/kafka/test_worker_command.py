"""`pipeline worker` on the command line: clear errors, exit codes, a clean stop, two workers."""

from __future__ import annotations

import pytest

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.harness import DEADLINE_S, PARTITIONS, Workbench
from tests.support.kafka.producing import ordered_producer
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


def _wait_for_log(bench: Workbench, text: str, times: int = 1) -> None:
    wait_until(
        lambda: bench.log.read_text().count(text) >= times, lambda: f"{text!r} in\n{bench.log.read_text()}"
    )


def test_a_module_or_app_that_is_not_there_is_named(bench: Workbench) -> None:
    """These names are mistyped most often."""
    missing = bench.command("worker", "no_such_module:app", "--kafka", bench.servers)
    assert missing.returncode == 1
    assert "module no_such_module does not exist" in missing.stderr
    other = bench.command("worker", "tests.support.kafka.sums:nothing", "--kafka", bench.servers)
    assert other.returncode == 1
    assert "try tests.support.kafka.sums:app" in other.stderr
    assert "Traceback" not in missing.stderr + other.stderr


def test_an_unknown_topic_is_named_with_the_command_that_creates_it(bench: Workbench) -> None:
    """Brokers do not create topics automatically, so the worker must name the missing topic."""
    cluster = KafkaCluster(KafkaSettings(bench.servers))
    cluster.delete([f"{bench.prefix}-sums"])
    done = bench.command("worker", "tests.support.kafka.sums:app", "--kafka", bench.servers)
    assert done.returncode == 1
    assert f"no topic {bench.prefix}-sums" in done.stderr
    assert "pipeline topics apply" in done.stderr


def test_a_kafka_that_is_away_at_start_is_exit_code_3(bench: Workbench) -> None:
    """Scripts distinguish a wrong configuration from an unreachable Kafka by the exit code."""
    bench.environment["PIPELINE_KAFKA_STARTUP_WAIT_S"] = "0"
    with closed_port() as port:
        done = bench.command("worker", "tests.support.kafka.sums:app", "--kafka", f"127.0.0.1:{port}")
    assert done.returncode == 3
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_poison_record_stops_its_task_until_the_cause_is_fixed(bench: Workbench) -> None:
    """All records before it must be committed, none of its effects, and the other task must continue."""
    bench.send(100)
    producer = ordered_producer(bench.servers)
    producer.produce(f"{bench.prefix}-amounts", b"{broken", b"key-1", partition=0)
    assert producer.flush(DEADLINE_S) == 0
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    _wait_for_log(bench, "task_failed", 2)  # both groups read the record
    assert bench.stop(worker) == 1
    log = bench.log.read_text()
    assert f"{bench.prefix}-amounts[0] offset" in log
    assert "runbooks/poison-record.md" in log
    before = {key: values[-1][0] for key, values in bench.outputs().items()}
    assert sum(before.values()) == 100
    again = bench.worker()
    _wait_for_log(bench, "task_failed", 4)
    assert bench.stop(again) == 1
    assert {key: values[-1][0] for key, values in bench.outputs().items()} == before


def test_a_thread_of_the_app_does_not_keep_a_stopped_worker_alive(bench: Workbench) -> None:
    """A supervisor waits for the process, and would never restart a failed worker."""
    bench.environment["THREAD"] = "1"
    worker = bench.worker(app="tests.support.kafka.native:app")
    _wait_for_log(bench, "task_live", PARTITIONS)
    assert bench.stop(worker) == 0
    stopped, _, left = bench.log.read_text().partition("worker_stopped")
    assert "task_failed" not in stopped
    assert "process_exit_forced" in left
    assert "still ran in its process: thread theirs" in left


def test_a_second_worker_on_the_same_state_directory_is_refused(bench: Workbench) -> None:
    """Two processes must not share a state, and the message must name the directory."""
    bench.send(10)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    second = bench.command(
        "worker",
        "tests.support.kafka.sums:app",
        "--kafka",
        bench.servers,
        "--state-dir",
        str(bench.state_dir),
    )
    assert second.returncode == 1
    assert str(bench.state_dir) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_topic_that_is_deleted_and_created_again_stops_the_worker(bench: Workbench) -> None:
    """Kafka serves the new topic under the old name without an error, so positions would be wrong."""
    bench.send(10)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    cluster = KafkaCluster(KafkaSettings(bench.servers))
    cluster.delete([f"{bench.prefix}-amounts"])
    cluster.create([TopicSpec(f"{bench.prefix}-amounts", PARTITIONS)])
    assert worker.wait(DEADLINE_S) == 1
    assert "runbooks/topic-recreated.md" in bench.log.read_text()
    restarted = bench.command(
        "worker",
        "tests.support.kafka.sums:app",
        "--kafka",
        bench.servers,
        "--state-dir",
        str(bench.state_dir),
    )
    assert restarted.returncode == 1
    assert "deleted and created again" in restarted.stderr


@pytest.mark.unverified
def test_a_deleted_journal_is_never_taken_for_a_new_app(bench: Workbench) -> None:
    """The journal is the source of truth: without it, the worker must not restart at zero."""
    bench.send(10)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    assert bench.stop(worker) == 0
    KafkaCluster(KafkaSettings(bench.servers)).delete([f"{bench.prefix}.main.journal"])
    done = bench.command(
        "worker",
        "tests.support.kafka.sums:app",
        "--kafka",
        bench.servers,
        "--state-dir",
        str(bench.state_dir),
    )
    assert done.returncode == 1
    assert "existed before" in done.stderr
    assert "runbooks/journal-lost.md" in done.stderr


def test_an_empty_disk_is_restored_from_the_journal(bench: Workbench) -> None:
    """The local state is a cache of the journal: losing it costs time, not data."""
    bench.send(2_000)
    worker = bench.worker("--commit-interval-ms", "20")
    bench.wait_for_outputs(worker)
    worker.kill()
    worker.wait()
    bench.state_dir = bench.state_dir.with_name("new-disk")
    bench.send(500)
    bench.finish()


def test_a_second_worker_on_the_same_state_is_refused_and_disturbs_no_task(bench: Workbench) -> None:
    """The second worker must find the locked state before it fences the tasks of the first one."""
    bench.send(200)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    second = bench.command(
        "worker",
        "tests.support.kafka.sums:app",
        "--kafka",
        bench.servers,
        "--state-dir",
        str(bench.state_dir),
    )
    assert second.returncode == 1
    assert f"is in use by another worker of app {bench.prefix}, process {worker.pid}" in second.stderr
    bench.send(200)
    bench.wait_for_outputs(worker)
    assert bench.stop(worker) == 0
    assert "task_fenced" not in bench.log.read_text()
    bench.finish()

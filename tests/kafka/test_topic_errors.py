"""Errors of Kafka and its topics: each message has the cause, the place and the next step, and no data is lost.

Every test checks the text that an operator gets, fixes the cause, and compares outputs and tables with a fold.
"""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.harness import DEADLINE_S, PARTITIONS
from tests.support.kafka.troubled_harness import TroubledBench
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


def test_a_start_without_kafka_says_where_it_looked_and_the_next_one_has_lost_nothing(
    troubled: TroubledBench,
) -> None:
    """A wrong address in one deployment must have no effect on the next one."""
    troubled.send(50)
    troubled.finish()
    troubled.environment |= {"PIPELINE_KAFKA_STARTUP_WAIT_S": "0"}
    with closed_port() as port:
        wrong = f"127.0.0.1:{port}"
        done = troubled.command(
            "worker", "tests.support.kafka.sums:app", "--kafka", wrong, "--state-dir", str(troubled.state_dir)
        )
    assert done.returncode == 3
    assert f"no Kafka at {wrong} (connection refused)" in done.stderr
    assert "name another with --kafka or PIPELINE_KAFKA" in done.stderr
    troubled.send(50)
    troubled.finish()


def test_an_input_that_grew_stops_the_worker_and_keeps_what_was_committed(troubled: TroubledBench) -> None:
    """Keys move to partitions whose tasks do not have their totals, so the totals would restart at zero."""
    troubled.environment |= {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
    troubled.send(100)
    worker = troubled.worker()
    troubled.catch_up(worker)  # the other group, too, which has no outputs
    topic = f"{troubled.prefix}-amounts"
    admin = AdminClient({"bootstrap.servers": troubled.servers})
    grown = admin.create_partitions([NewPartitions(topic, 3)])
    grown[topic].result(DEADLINE_S)
    assert worker.wait(DEADLINE_S) == 1
    failed = troubled.wait_for_event("task_failed", times=2 * PARTITIONS)
    assert f"topic {topic} had 2 partitions and has 3" in failed["message"]
    assert "runbooks/partitions-changed.md" in failed["hint"]
    again = troubled.refused().stderr
    assert f"topic {topic} had 2 partitions and has 3: keys are now in other partitions" in again
    assert "runbooks/partitions-changed.md" in again
    troubled.check()


def test_a_recreated_input_keeps_what_was_committed(troubled: TroubledBench) -> None:
    """The refusal must change nothing: the outputs and tables from the old topic must stay readable."""
    troubled.environment |= {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
    troubled.send(100)
    worker = troubled.worker()
    troubled.catch_up(worker)  # the other group, too, which has no outputs
    cluster = KafkaCluster(KafkaSettings(troubled.servers))
    cluster.delete([f"{troubled.prefix}-amounts"])
    cluster.create([TopicSpec(f"{troubled.prefix}-amounts", PARTITIONS)])
    assert worker.wait(DEADLINE_S) == 1
    failed = troubled.wait_for_event("task_failed")
    assert f"topic {troubled.prefix}-amounts was deleted" in failed["message"]
    assert "runbooks/topic-recreated.md" in failed["hint"]
    assert "deleted and created again" in troubled.refused().stderr
    troubled.check()


@pytest.mark.parametrize(("name", "wrong"), [("retention.ms", "604800000"), ("max.message.bytes", "100000")])
def test_a_journal_with_a_wrong_setting_is_refused_with_the_command_that_fixes_it(
    troubled: TroubledBench, name: str, wrong: str
) -> None:
    """One setting would delete the only copy of the state after a week, the other would refuse large commits."""
    troubled.send(50)
    troubled.finish()
    journal = f"{troubled.prefix}.main.journal"
    right = KafkaCluster(KafkaSettings(troubled.servers)).describe([journal])[journal].config[name]
    troubled.configure(journal, name, wrong)
    said = troubled.refused().stderr
    assert f"topic {journal} has {name}={wrong}" in said
    command = f"pipeline topics set {journal} {name}={right}"
    assert f"  -> {command}\n" in said
    done = troubled.command(*command.split()[1:], "--yes", "--kafka", troubled.servers)
    assert done.returncode == 0, done.stderr
    troubled.send(50)
    troubled.finish()


def test_a_journal_and_an_output_that_are_deleted_under_a_worker_are_named(troubled: TroubledBench) -> None:
    """Otherwise commits and restores would be retried forever, with client errors that do not name the cause."""
    troubled.environment |= {"PIPELINE_CHECK_INTERVAL_S": "0.5"}
    troubled.send(100)
    worker = troubled.worker()
    troubled.catch_up(worker)
    cluster = KafkaCluster(KafkaSettings(troubled.servers))
    cluster.delete([f"{troubled.prefix}.counting.journal"])
    failed = troubled.wait_for_event("task_failed", times=PARTITIONS)
    assert f"its journal {troubled.prefix}.counting.journal was deleted" in failed["message"]
    assert "runbooks/journal-lost.md" in failed["hint"]
    where = f'"message":"task {troubled.prefix}/counting/'
    shown = ""

    def status_shows_it() -> bool:  # the note follows the log
        nonlocal shown
        shown = troubled.command("status", troubled.prefix, "--json", "--kafka", troubled.servers).stdout
        return shown.count(where) == PARTITIONS

    wait_until(status_shows_it, lambda: shown, DEADLINE_S)
    assert f"its journal {troubled.prefix}.counting.journal was deleted" in shown
    assert "runbooks/journal-lost.md" in shown
    cluster.delete([f"{troubled.prefix}-sums"])
    failed = troubled.wait_for_event("task_failed", times=2 * PARTITIONS)
    assert f"topic {troubled.prefix}-sums, which this task writes to, was deleted" in failed["message"]
    assert "pipeline topics apply" in failed["hint"]
    assert worker.wait(DEADLINE_S) == 1

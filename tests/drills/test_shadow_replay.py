"""shadow-replay on live workers and a real Kafka: equal for the same code, and the difference of other code by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import topics_of_shadow
from pipeline.core.records import partition_of
from pipeline.kafka.cluster import KafkaCluster
from tests.conftest import KafkaUnderTest
from tests.support.drills.live import PARTITIONS, LiveApp

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(400)]

_APP = "tests.support.kafka.sums:app"
_WRONG = "key-3:200"


def _partition(key: str) -> int:
    return partition_of(key.encode(), PARTITIONS)


def _shadow_topics(live: LiveApp) -> list[str]:
    with closing(KafkaCluster(KafkaSettings(live.bench.servers))) as cluster:
        names = cluster.topics()
    shadows = {name.partition("-out-")[0] for name in names if "-out-" in name and "-shadow-" in name}
    return [name for shadow in shadows for name in topics_of_shadow(shadow, names)]


def test_the_same_code_is_equal_and_a_changed_handler_is_named(live: LiveApp) -> None:
    """An operator compares a new version of the code with what the live app has done, before its deployment."""
    live.wait_for(lambda: len(live.bench.sent) > 400)
    live.run("run", "shadow-replay", "--app", _APP, "--yes")
    report = live.report()
    assert report.verdict == "held", report.deviations
    assert report.recovery_point.states_compared == report.recovery_point.states_equal == 4
    assert report.recovery_point.outputs_compared > 400
    assert report.blast_radius.touched == []

    said = live.run("run", "shadow-replay", "--app", _APP, "--yes", code=1, SUMS_WRONG=_WRONG)
    report = live.report()
    assert report.verdict == "deviated"
    assert report.recovery_point.exactly_once
    (output,) = [each for each in report.recovery_point.effects if each.kind == "output"]
    (row,) = [each for each in report.recovery_point.effects if each.kind == "state"]
    assert output.text.startswith("output ")
    assert "of key key-3: live {" in output.text
    assert row.text.startswith("table totals, key key-3: live {")
    # The first number from 200 on that is of key-3.
    number, key = next((n, key) for n, (key, _) in enumerate(live.bench.sent) if n >= 200 and key == "key-3")
    offset = sum(1 for each, _ in live.bench.sent[:number] if _partition(each) == _partition(key))
    first, last = (int(word) for word in row.text.partition("in offsets ")[2].split()[0:3:2])
    assert first <= offset <= last
    assert row.offset == first
    assert last - first < 400
    assert "pipeline runbook shadow-replay-differs" in said
    assert _shadow_topics(live) == []
    live.finish()


def test_tasks_of_several_partitions_are_compared(live_2: LiveApp) -> None:
    """Rows, commits and outputs of a task are those of two partitions, which are processed in another order again."""
    live = live_2
    live.wait_for(lambda: len(live.bench.sent) > 400)
    live.run("run", "shadow-replay", "--app", _APP, "--yes")
    report = live.report()
    assert report.verdict == "held", report.deviations
    assert report.recovery_point.states_compared == report.recovery_point.states_equal == 2
    assert report.recovery_point.outputs_compared > 400

    live.run("run", "shadow-replay", "--app", _APP, "--yes", code=1, SUMS_WRONG=_WRONG)
    (row,) = [each for each in live.report().recovery_point.effects if each.kind == "state"]
    partition = _partition("key-3")
    assert row.text.startswith(f"table totals, partition {partition}, key key-3: live {{")
    assert row.topic == f"{live.name}-amounts[{partition}]"
    number = next(n for n, (key, _) in enumerate(live.bench.sent) if n >= 200 and key == "key-3")
    offset = sum(1 for each, _ in live.bench.sent[:number] if _partition(each) == partition)
    first, last = (int(word) for word in row.text.partition("in offsets ")[2].split()[0:3:2])
    assert first <= offset <= last
    assert f"{live.name}-amounts/{partition}/{first}" in row.text

    live.run("run", "replay-from-checkpoint", "--worker", "a", "--yes")
    report = live.report()
    assert report.verdict == "held", report.deviations
    assert report.recovery_point.states_compared == report.recovery_point.states_equal >= 1
    live.finish()


@pytest.fixture
def unforgetting(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[LiveApp]:
    """A live app whose journals are complete."""
    app = LiveApp(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, checkpoint_s=3600)
    yield app
    app.close()


def test_a_replay_from_a_later_record_begins_with_the_live_rows(unforgetting: LiveApp) -> None:
    """Inputs expire, and a difference after a deployment is found without the history before it."""
    live = unforgetting
    live.wait_for(lambda: len(live.bench.sent) > 400)
    said = live.run("run", "shadow-replay", "--app", _APP, "--yes", "--from", f"{live.name}-amounts/0/60")
    report = live.report()
    assert any(each.startswith("1 task is replayed from a later entry") for each in report.preconditions)
    assert report.recovery_point.states_compared == report.recovery_point.states_equal == 1
    assert "topic" in said
    live.finish()


def test_the_topics_of_a_shadow_app_are_deleted_after_the_driller_was_killed(live: LiveApp) -> None:
    """Its process ends with the driller, and its topics are named in the intent."""
    driller = live.start("run", "shadow-replay", "--app", _APP, "--yes")
    live.wait_for(lambda: len(_shadow_topics(live)) > 2 or driller.poll() is not None)
    driller.kill()
    said, _ = driller.communicate()
    assert _shadow_topics(live), said
    assert "topics deleted" in live.run("undo")
    assert _shadow_topics(live) == []
    assert not list(live.drills.glob("*-shadow-*"))
    live.finish()

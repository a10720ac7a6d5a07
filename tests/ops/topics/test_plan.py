"""The plan, row by row: what is done with a topic, and what speaks against it."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event
from pipeline.core.names import GroupId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.topics.plan import Change, TopicAction
from pipeline.ports import Output, Step
from pipeline.testing import TestDriver
from tests.ops.topics.conftest import Case, declare

WEEK, HOUR = "604800000", "3600000"


def _problems(case: Case, *lines: str, allow: str = "", partitions: int = 4, **config: str) -> list[str]:
    found = case.one(declare("orders", partitions, *lines, **config), allow)
    assert found.problems
    assert not found.to_do
    return [f"{problem.text} -> {problem.hint}" for problem in found.problems]


def test_a_topic_that_is_missing_is_created_with_its_settings(case: Case) -> None:
    """The first row, and on most days the only one."""
    found = case.one(declare(retention_ms="-1"))
    assert (found.action, found.problems) == (TopicAction.CREATE, ())
    assert found.changes == (Change("retention.ms", None, "-1", from_default=True),)
    case.create("other")
    orders = case.plan(declare(retention_ms="-1"), declare("other")).topics[0]
    assert orders.changes == (Change("retention.ms", WEEK, "-1", from_default=True),)


def test_a_topic_as_declared_is_left_alone(case: Case) -> None:
    """In other words, in another order, and by default: the same."""
    case.create("orders", cleanup_policy="compact,delete", min_cleanable_dirty_ratio="0.50")
    same = declare(cleanup_policy="delete, compact", min_cleanable_dirty_ratio="0.5", retention_ms=WEEK)
    assert case.one(same).action is TopicAction.NONE
    assert case.plan(same).empty


def test_a_setting_with_another_value_is_set(case: Case) -> None:
    """What was before is named, and whether the topic had it for itself."""
    case.create("orders", segment_bytes="2000000")
    found = case.one(declare(segment_bytes="3000000", retention_ms="-1"))
    assert found.changes == (
        Change("retention.ms", WEEK, "-1", from_default=True),
        Change("segment.bytes", "2000000", "3000000"),
    )
    assert found.settings == {"retention.ms": "-1", "segment.bytes": "3000000"}
    assert found.to_do


def test_a_setting_that_is_not_declared_returns_to_the_default(case: Case) -> None:
    """A setting that was changed by hand is shown and reset."""
    case.create("orders", segment_bytes="2000000")
    case.create("other")  # where the default can be seen
    found = case.one(declare())
    assert found.changes == (Change("segment.bytes", "2000000", "1073741824", to_default=True),)
    assert found.settings == {"segment.bytes": None}
    assert found.to_do


def test_throttles_of_a_reassignment_are_not_drift(case: Case) -> None:
    """Taking them away would let the copying of replicas crowd out everything else."""
    case.create("orders", leader_replication_throttled_replicas="0:1,1:2")
    assert case.plan(declare()).empty


@pytest.mark.parametrize(
    ("config", "declared", "said"),
    [
        ({}, {"retention_ms": HOUR}, "retention.ms: records older than that are deleted"),
        ({"retention_ms": "-1"}, {}, "retention.ms: records older than that are deleted"),
        ({}, {"retention_bytes": "1"}, "retention.bytes: what a partition holds beyond that is deleted"),
        (
            {"cleanup_policy": "compact"},
            {"cleanup_policy": "delete"},
            "cleanup.policy: records that retention.ms",
        ),
        ({"cleanup_policy": "compact"}, {}, "cleanup.policy: records that retention.ms"),
        (
            {},
            {"cleanup_policy": "compact"},
            "cleanup.policy: only the last record of each key is kept",
        ),
        (
            {"max_message_bytes": "2000000"},
            {"max_message_bytes": "1000"},
            "max.message.bytes: larger records",
        ),
        ({"min_insync_replicas": "2"}, {}, "min.insync.replicas: a record then counts as written on fewer"),
    ],
)
def test_what_loses_records_is_refused_by_name_until_it_is_allowed(
    case: Case, config: dict[str, str], declared: dict[str, str], said: str
) -> None:
    """Removing a line from a file must not delete a year of records."""
    case.create("orders", 4, 0, **config)
    case.create("other")
    (problem,) = case.one(declare("orders", 4, **declared)).problems
    assert problem.text.startswith(said)
    assert problem.hint == "to accept that, add --allow orders"
    assert case.one(declare("orders", 4, **declared), allow="orders").to_do


def test_an_unknown_default_counts_as_a_loss(case: Case) -> None:
    """Kafka does not tell what a topic's own retention hides."""
    case.create("orders", retention_ms="5")
    (problem,) = _problems(case)
    assert problem.startswith("retention.ms: records older than that are deleted")


def test_allowing_a_topic_that_is_not_declared_is_a_mistake(case: Case) -> None:
    """A mistyped name would otherwise allow nothing, silently."""
    with pytest.raises(InputError, match="--allow ordres: the topic is not declared; did you mean 'orders'"):
        case.plan(declare(), allow="ordres")


def test_a_setting_that_kafka_does_not_know_is_refused(case: Case) -> None:
    """A typing error in a name would otherwise be found at the deployment."""
    case.create("orders")
    (problem,) = _problems(case, retentoin_ms="5")
    assert "no topic setting 'retentoin.ms'; did you mean 'retention.ms'?" in problem
    (planned,) = case.plan(declare("new", retentoin_ms="5"), declare()).topics[:1]
    assert "'retentoin.ms'" in planned.problems[0].text


def test_more_required_replicas_than_there_are_is_refused(case: Case) -> None:
    """Kafka takes the setting, and then no record any more."""
    case.create("orders", replication=2)
    (problem,) = _problems(case, min_insync_replicas="3")
    assert "more than the number of replicas, 2" in problem
    assert case.one(declare(min_insync_replicas="2")).to_do
    new = case.one(declare("new", 1, "replication: 1", min_insync_replicas="2"))
    assert "more than the number of replicas, 1" in new.problems[0].text


def test_fewer_partitions_are_impossible(case: Case) -> None:
    """The page says what there is instead."""
    case.create("orders", partitions=8)
    (problem,) = _problems(case, allow="orders")
    assert "Kafka cannot remove partitions: the topic has 8, 4 are declared" in problem
    assert "runbooks/partitions-changed.md" in problem


def test_another_replication_is_impossible_from_here(case: Case) -> None:
    """It is days of copying on a large topic, and Kafka has a tool for it."""
    case.create("orders", replication=1)
    (problem,) = _problems(case, "replication: 3", allow="orders")
    assert "cannot change replication from 1 to 3" in problem
    assert "kafka-reassign-partitions.sh" in problem
    assert case.plan(declare()).empty  # left out: left to the cluster


def test_nothing_of_a_topic_is_done_while_something_of_it_is_refused(case: Case) -> None:
    """A topic that is changed in part would have a state that no declaration describes."""
    case.create("orders", replication=1)
    found = case.one(declare("orders", 4, "replication: 3", retention_ms="-1"))
    assert len(found.changes) == 2
    assert not found.to_do


# Partitions


def _app(name: str = "shop") -> App:
    app = App(name)
    orders = app.topic("orders", key=str, value=int)
    totals = app.topic("totals", key=str, value=int)

    @app.handler(orders)
    def add(event: Event[str, int], ctx: Context) -> None:
        ctx.send(totals, event.key, event.value)

    return app


def _run(case: Case, *, records: int = 3, app: App | None = None) -> TestDriver:
    """An app that has handled a few records, on the case's cluster."""
    driver = TestDriver(app or _app(), partitions=4)
    case.broker = driver.broker
    for number in range(records):
        driver.broker.produce(Output("orders", b"key", str(number).encode(), 0))
    driver.run()
    return driver


def test_partitions_of_a_topic_that_no_app_reads_are_added_with_a_warning(case: Case) -> None:
    """Keys move permanently, which affects consumers that count by key."""
    case.create("orders")
    found = case.one(declare("orders", 6))
    assert found.changes == (Change("partitions", "4", "6"),)
    assert found.to_do
    assert "most keys move" in found.warnings[0]


def test_partitions_of_a_compacted_topic_are_added_only_when_that_is_allowed(case: Case) -> None:
    """The old partition keeps its last value of each moved key, so the key has two last values."""
    case.create("orders", cleanup_policy="compact")
    (problem,) = _problems(case, partitions=6, cleanup_policy="compact")
    assert "the topic is compacted" in problem
    assert case.one(declare("orders", 6, cleanup_policy="compact"), allow="orders").to_do


@pytest.mark.parametrize("stopped", [False, True])
def test_partitions_of_an_input_are_refused_also_when_no_worker_lives(case: Case, stopped: bool) -> None:
    """Its tables stay behind in the old partitions: --allow does not change that, `pipeline migrate` does."""
    driver = _run(case)
    if stopped:
        driver.stop()
    (problem,) = _problems(case, partitions=6, allow="orders")
    assert problem.startswith(
        "group shop/main reads the topic: with 6 partitions instead of 4, the table rows of most keys "
        "would be in another partition"
    )
    assert "pipeline migrate: runbooks/partitions-changed.md" in problem
    assert "if the app will never run again, delete shop.main.journal" in problem


def test_partitions_of_an_output_are_added(case: Case) -> None:
    """Nothing of the app lies by its partitions; its workers say so and take the new number at their next start."""
    _run(case)
    found = case.one(declare("totals", 6))
    assert found.to_do
    assert "Workers that write to the topic stop, and must be restarted" in found.warnings[0]


def test_an_input_is_known_before_its_first_record(case: Case) -> None:
    """A group that has begun has its identity in the journal, and nothing else."""
    driver = TestDriver(_app(), partitions=4)
    case.broker = driver.broker
    driver.crash_at(Step.AFTER_GENESIS)
    driver.run()
    assert driver.crashed
    assert "group shop/main reads the topic" in _problems(case, partitions=6)[0]


@pytest.mark.unverified
def test_an_input_is_known_after_the_journal_was_truncated(case: Case) -> None:
    """With a checkpoint store the genesis entry is deleted after some minutes."""
    _run(case).stop()
    for number in range(4):
        journal = TopicPartition("shop.main.journal", number)
        start, stable_end, _ = case.broker.bounds(journal)
        case.broker.truncate(journal, max(start, stable_end - 4))
    assert "group shop/main reads the topic" in _problems(case, partitions=6)[0]


@pytest.mark.unverified
def test_a_journal_that_cannot_be_read_is_taken_for_a_reader(case: Case) -> None:
    """Not to know is no reason to move keys away from their state."""
    case.create("orders")
    case.create("shop.main.journal", 1)
    case.broker.produce(Output("shop.main.journal", None, b"not an entry", 0), partition=0)
    (problem,) = _problems(case, partitions=6)
    assert problem.startswith("it is unknown whether group shop/main reads the topic: the journal")


# Deletion


def test_a_topic_that_is_not_declared_is_listed_and_left_alone(case: Case) -> None:
    """A file that is forgotten, or is in another repository, deletes nothing."""
    for name in ("orders", "theirs", "shop.main.journal", "shop.main.dead-letters", "pipeline.workers.shop"):
        case.create(name)
    plan = case.plan(declare())
    assert plan.empty
    assert list(plan.undeclared) == ["theirs"]


def test_a_tombstone_deletes_only_when_that_is_allowed_too(case: Case) -> None:
    """Two people's mistakes, or one person's intention."""
    case.create("orders")
    tombstone = declare("orders", 4, "deleted: true")
    found = case.one(tombstone)
    assert (found.action, found.to_do) == (TopicAction.DELETE, False)
    assert found.problems[0].text == "all its records are deleted"
    assert case.one(tombstone, allow="orders").to_do
    case.broker.delete("orders")
    assert case.plan(tombstone).empty


def test_a_topic_whose_readers_live_is_not_deleted(case: Case) -> None:
    """Its tasks would fail within seconds."""
    driver = _run(case)
    tombstone = declare("orders", 4, "deleted: true")
    (problem,) = case.one(tombstone, allow="orders").problems
    assert problem.text == "group shop/main reads the topic, and its workers are running"
    driver.stop()
    found = case.one(tombstone, allow="orders")
    assert found.to_do
    assert "group shop/main has read the topic" in found.warnings[0]


def test_readers_are_named_by_their_group(case: Case) -> None:
    """Each group, of one app or of two apps, must be named: it can have another owner."""
    _run(case)
    _run_beside(case, "billing")
    text = "\n".join(_problems(case, partitions=6))
    assert "group shop/main" in text
    assert "group billing/main" in text
    assert GroupId("shop", "main").journal_topic in text


def _run_beside(case: Case, name: str) -> None:
    driver = TestDriver(_app(name), partitions=4)
    driver.broker = case.broker
    driver.run()

"""The topic of replays as one more input of its tasks: when it comes, goes, is reset or holds nonsense."""

from __future__ import annotations

import pytest

from pipeline import Context, Event
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.dead_letters import Replay, encode_replay, read_letter
from pipeline.errors import (
    ConfigError,
    HandlerError,
    InputError,
)
from pipeline.ops.migration.migration import Migration, survey
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime.reset import plan_reset, start_at
from pipeline.runtime.restore import restore
from pipeline.runtime.status import read_status
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed


def test_a_group_without_dead_letters_has_neither_topic_nor_input_of_them() -> None:
    """Who asks for none pays nothing, and needs no permission for their topics."""
    orders = Orders(on_error="skip")
    orders.send(1, 2)
    orders.driver.run()
    assert not [
        name
        for name in orders.driver.broker.topics()
        if name.startswith("orders.main.") and "journal" not in name
    ]
    (run,) = orders.driver.worker.runs
    assert list(run.plan.identity.inputs) == ["amounts"]
    with pytest.raises(InputError, match="has no dead letters"):
        orders.driver.replay_dead_letters()


def test_an_app_gets_replays_as_an_input_when_it_first_wants_dead_letters() -> None:
    """Adding one is allowed; its state and positions stay."""
    orders = Orders(on_error="skip")
    orders.send(1, 2, 3)
    orders.driver.run()
    orders.driver.restart(app=orders.version())
    orders.bad = {4}
    orders.send(4, 5)
    orders.driver.run()
    orders.bad = set()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


def test_replays_that_wait_are_handled_after_the_last_handler_has_another_policy() -> None:
    """A change from `dead_letter` to `stop` does not mean that replays may be dropped."""
    orders = failed()
    orders.driver.stop()
    orders.driver.replay_dead_letters()
    orders.driver.restart(app=orders.version(on_error="stop"))
    orders.driver.run()
    orders.check()


def test_a_worker_that_does_not_know_the_topic_yet_runs_the_task_and_keeps_its_place() -> None:
    """It has started before the topic was there, and gets a task back from one that started after."""
    orders = failed(partitions=1)
    orders.driver.replay_dead_letters(error="3 is not")
    orders.driver.run()
    topic = orders.driver.broker._topics.pop(GROUP.replays_topic)
    orders.driver.restart(app=orders.version(on_error="skip"))
    orders.send(30)
    orders.driver.run()
    orders.driver.broker._topics[GROUP.replays_topic] = topic
    orders.driver.restart(app=orders.version())
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


def test_a_group_that_begins_at_the_end_of_its_inputs_still_handles_replays() -> None:
    """`start = latest` is about history; a replay was asked for just now."""
    settings = WorkerSettings(worker_id="test", start="latest")
    orders = Orders(settings=settings)
    orders.driver.run()
    orders.bad = {3}
    orders.send(1, 2, 3)
    orders.driver.run()
    orders.driver.stop()
    orders.bad = set()
    orders.driver.replay_dead_letters()
    orders.driver.restart(empty_disk=True)
    orders.driver.run()
    orders.check()


def test_latest_does_not_skip_what_was_replayed_before_the_input_was_known() -> None:
    """The topic of replays is new to its tasks, and its first letter is already there."""
    settings = WorkerSettings(worker_id="test", start="latest")
    orders = Orders(settings=settings, on_error="skip")
    orders.driver.run()
    orders.driver.stop()
    other = failed()
    letter = other.driver.broker.records(GROUP.dead_letter_topic)[0]
    orders.driver.restart(app=orders.version())
    orders.driver.crash_at(Step.BEFORE_ACQUIRE)
    orders.driver.run()
    headers = letter.headers() or []
    orders.driver.broker.produce(Output(GROUP.dead_letter_topic, letter.key(), letter.value(), 0, headers))
    orders.driver.replay_dead_letters()
    orders.driver.restart()
    orders.driver.run()
    assert [event.value for event in orders.seen] == [int(letter.value() or b"")]


def test_a_replay_of_a_topic_that_the_worker_does_not_read_comes_back_as_a_letter() -> None:
    """The command and the worker may be of two versions: what has no handler is not lost."""
    orders = failed(partitions=1)
    gone = Replay(
        topic="gone",
        partition=0,
        offset=7,
        timestamp_ms=5,
        key=b"k",
        value=b"1",
        headers=(),
        letter_partition=0,
        letter_offset=0,
        number=1,
    )
    orders.driver.broker.produce(Output(GROUP.replays_topic, None, encode_replay(gone), 5))
    orders.driver.run()
    orders.check(without=BAD)
    letter = orders.driver.dead_letters()[-1]
    read = read_letter(letter.headers)
    assert read is not None
    assert (letter.key, letter.value, read[0].origin.topic, read[0].origin.offset) == (b"k", b"1", "gone", 7)
    assert "topic gone is no longer an input of its group" in read[0].error
    assert read[0].replay == 1


def test_a_foreign_record_in_replays_becomes_a_letter() -> None:
    """A foreign record in the topic must not stop the task, and must not be dropped."""
    orders = failed(partitions=1)
    orders.driver.broker.produce(Output(GROUP.replays_topic, b"k", b"hello", 5))
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()
    letter = orders.driver.dead_letters()[-1]
    read = read_letter(letter.headers)
    assert read is not None
    assert (letter.key, letter.value) == (b"k", b"hello")
    assert read[0].origin.topic == GROUP.replays_topic
    assert "not a replay that this release can read" in read[0].error
    with pytest.raises(InputError, match=r"topic orders\.main\.replays is no longer an input"):
        orders.driver.replay_dead_letters()


def test_a_replay_of_a_mistaken_program_stops_its_task_and_is_met_again() -> None:
    """As under every policy: it is the app that is wrong."""
    orders = failed(partitions=1)
    app = orders.version()
    other_table = app.group("other").table("t", key=str, value=int)

    @app.handler(orders.amounts)
    def wrong(event: Event[str, int], ctx: Context) -> None:
        ctx.table(other_table)

    orders.driver.restart(app=app)
    orders.driver.replay_dead_letters()
    with pytest.raises(HandlerError, match=r"amounts\[0\] offset 2 cannot be processed"):
        orders.driver.run()
    orders.driver.restart(app=orders.version())
    orders.driver.run()
    orders.check()


def reset_plan(orders: Orders) -> int:
    """How many replays a reset says that it drops."""
    environment = orders.driver.environment()
    planned = plan_reset(
        declared_app(orders.app), declared_app(orders.app).groups, None, start_at(["earliest"]), environment
    )
    inputs = [place for task in planned for place in task.inputs]
    return sum(place.skipped for place in inputs if place.topic == GROUP.replays_topic)


def test_a_reset_drops_no_replay_that_was_handled() -> None:
    """The marker behind the last one is none that waits: a plan that says so would make people wonder."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    assert reset_plan(orders) == 0


def test_a_reset_forgets_what_waits_to_be_replayed() -> None:
    """The input is handled again from its beginning, and those records with it: they must not count twice."""
    orders = failed()
    orders.driver.stop()
    orders.driver.replay_dead_letters()
    before = len(orders.driver.outputs(orders.sums))
    assert reset_plan(orders) == len(BAD) + 2  # offsets: a marker in each partition is one, too
    orders.driver.reset()
    orders.driver.restart()
    orders.driver.run()
    expected: dict[str, int] = {}
    for customer, amount in orders.sent:
        expected[customer] = expected.get(customer, 0) + amount
    assert orders.driver.table(orders.totals) == expected
    assert len(orders.driver.outputs(orders.sums)) == before + len(orders.sent)


def test_a_group_that_is_started_over_handles_no_replay_of_its_old_history() -> None:
    """Its journal was lost, so all input is handled again: the replays of that input would count twice."""
    orders = failed()
    driver = orders.driver
    driver.replay_dead_letters()
    driver.run()
    orders.check()
    driver.stop()
    # As runbooks/journal-lost.md has it: the journal, the offsets of the group, its states.
    driver.broker.delete(GROUP.journal_topic)
    driver.broker.forget_offsets(GROUP.consumer_group)
    driver.restart(empty_disk=True)
    before = len(driver.outputs(orders.sums))
    driver.run()
    expected: dict[str, int] = {}
    for customer, amount in orders.sent:
        expected[customer] = expected.get(customer, 0) + amount
    assert driver.table(orders.totals) == expected
    assert len(driver.outputs(orders.sums)) == before + len(orders.sent)


def test_a_topic_of_replays_that_was_created_again_stops_its_tasks() -> None:
    """Positions in the old one mean nothing in the new one."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.driver.broker.delete(GROUP.replays_topic)
    orders.driver.restart()
    with pytest.raises(ConfigError, match="deleted and created again"):
        orders.driver.run()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_new_topic_of_replays_is_read_from_its_first_record(
    earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two releases with dead letters one without: the topic was deleted, and old offsets mean nothing."""
    orders = failed(partitions=1)
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.driver.stop()
    orders.driver.broker.delete(GROUP.replays_topic)
    with monkeypatch.context() as patched:
        if earlier:  # a release that did not keep the id of the topic
            patched.setattr(restore, "acquired_identity", lambda _before, now, _ends_before: now)
        orders.driver.restart(app=orders.version(on_error="skip"))
        orders.send(30)
        orders.driver.run()
    orders.driver.restart(app=orders.version())
    orders.bad = {31, 32}
    orders.send(31, 32)
    orders.driver.run()
    orders.bad = set()
    orders.driver.replay_dead_letters()
    for empty_disk in (False, True):
        orders.driver.run()
        orders.check()
        orders.driver.restart(empty_disk=empty_disk)
    orders.driver.run()
    orders.check()


def test_a_topic_of_replays_with_other_partitions_is_refused() -> None:
    """A topic that was created by hand would leave tasks without a partition, or partitions unread."""
    orders = Orders()
    orders.driver.broker.create(TopicSpec(GROUP.replays_topic, 7))
    with pytest.raises(ConfigError, match="has 7 partitions, and the inputs of group orders/main have 2"):
        orders.driver.run()


def test_an_input_that_has_got_partitions_is_still_what_is_complained_about() -> None:
    """The error must name the input that was changed, not the topic of replays."""
    orders = failed()
    orders.driver.stop()
    orders.driver.broker.add_partitions("amounts", 2)
    orders.driver.restart()
    with pytest.raises(ConfigError, match="topic amounts had 2 partitions and has 4"):
        orders.driver.run()


def test_status_counts_what_waits_to_be_replayed_as_lag() -> None:
    """The operator must see when the replay is complete."""
    orders = failed()
    orders.driver.stop()
    orders.driver.replay_dead_letters()
    broker = orders.driver.broker

    def lag() -> int:
        now_ms = orders.driver.clock.wall_ms()
        found = read_status("orders", MemoryCluster(broker), MemoryJournalReader(broker), now_ms)
        return sum(task.lag for task in found.tasks)

    assert lag() == len(BAD)
    orders.driver.restart()
    orders.driver.run()
    assert lag() == 0


def test_a_migration_need_not_copy_replays() -> None:
    """The new app has a topic of its own, with as many partitions as it has tasks."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    broker = orders.driver.broker
    broker.create(TopicSpec("amounts-2", 5, config={"retention.ms": "-1"}))
    migration = Migration("orders", "orders-2", {"amounts": "amounts-2"})
    found = survey(
        migration, MemoryCluster(broker), MemoryJournalReader(broker), orders.driver.clock, incomplete=False
    )
    assert found.problems == []
    assert found.notes == []


def test_the_topic_of_replays_is_the_pipelines_own() -> None:
    """A foreign record in the topic would become a dead letter without an origin."""
    with pytest.raises(ConfigError, match="only `pipeline deadletters replay` may write"):
        Orders().app.topic("orders.main.replays", key=str, value=int)

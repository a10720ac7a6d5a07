"""Dead letters that are replayed in memory: each once, and as the records that they were."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Batch, Context, Dedup, Event
from pipeline.app import declared_app
from pipeline.core.dead_letters import Replay, encode_replay, read_letter
from pipeline.core.names import TopicPartition
from pipeline.errors import (
    ConfigError,
    InputError,
)
from pipeline.ops.dead_letters.letters import Choice, letter_id
from pipeline.ops.dead_letters.replaying import Replayer, ReplayReport
from pipeline.ports import Output
from pipeline.testing import TestDriver
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer


def numbers(orders: Orders) -> list[int]:
    return sorted(event.value for event in orders.seen)


@pytest.mark.parametrize("batch", [False, True])
def test_every_record_counts_once_after_the_handler_is_fixed(batch: bool) -> None:
    """After a fix and a replay, the results are those of a handler that was always correct."""
    orders = failed(batch=batch)
    assert orders.driver.replay_dead_letters() == len(BAD)
    orders.driver.run()
    orders.check()
    assert numbers(orders) == sorted(BAD)
    assert len(orders.driver.dead_letters()) == len(BAD)  # they stay where they are


def test_a_replayed_record_is_shown_as_the_record_that_it_was() -> None:
    """External effects use the same key again, so a service can recognize the repetition."""
    orders = Orders(partitions=1)
    orders.bad = {5}
    orders.driver.send(
        orders.amounts, "k", 5, timestamp_ms=77, headers=[("trace", b"1"), ("empty", None), ("trace", b"2")]
    )
    orders.driver.run()
    orders.bad = set()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    first, second = orders.seen
    for event in (first, second):
        assert (event.topic, event.partition, event.offset, event.timestamp_ms) == ("amounts", 0, 0, 77)
        assert list(event.headers) == [("trace", b"1"), ("empty", None), ("trace", b"2")]
    assert first.effect_key() == second.effect_key()
    assert [event.timestamp_ms for event in orders.driver.outputs(orders.sums)] == [77]


@pytest.mark.parametrize("batch", [False, True])
def test_a_letter_keeps_its_effect_key_when_its_topic_is_created_again(batch: bool) -> None:
    """Another record lies at its place now: with that one's key, one of the two would not be charged."""
    orders = Orders(partitions=1, batch=batch)
    orders.bad = {5}
    orders.send(5)
    orders.driver.run()
    orders.driver.stop()
    orders.driver.recreate(orders.amounts)
    orders.driver.reset()
    orders.send(6)
    orders.driver.run()
    for _ in range(2):  # in vain at first: the letter of a letter is of the old topic, too
        orders.driver.replay_dead_letters()
        orders.driver.run()
    orders.bad = set()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    keys = {value: {event.effect_key() for event in orders.seen if event.value == value} for value in (5, 6)}
    assert [event.offset for event in orders.seen] == [0] * 5
    assert len(keys[5]) == len(keys[6]) == 1
    assert keys[5] != keys[6]
    letters = orders.driver.dead_letters()
    assert len({dict(letter.headers)["dead-letter-topic-id"] for letter in letters}) == 1
    assert len(letters) == 3


def test_a_replay_that_does_not_say_its_topics_id_is_of_the_present_one() -> None:
    """Letters of earlier releases do not know it."""
    orders = Orders(partitions=1)
    orders.send(5)
    orders.driver.run()
    event = orders.seen.pop()
    [record] = orders.driver.broker.records("amounts")
    replay = Replay(
        topic="amounts", partition=0, offset=0, timestamp_ms=1_005, key=record.key(), value=record.value(),
        headers=(), letter_partition=0, letter_offset=0, number=1,
    )  # fmt: skip
    orders.driver.broker.produce(Output(GROUP.replays_topic, None, encode_replay(replay), 0), partition=0)
    orders.driver.run()
    [again] = orders.seen
    assert again.effect_key() == event.effect_key()


def test_replaying_twice_replays_nothing_and_again_replays_once_more() -> None:
    """The command is safe to repeat; who wants a second time says so."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    assert orders.driver.replay_dead_letters() == 0
    orders.driver.run()
    orders.check()
    assert orders.driver.replay_dead_letters(again=True) == len(BAD)
    orders.driver.run()
    assert numbers(orders) == sorted([*BAD, *BAD])


def test_one_that_fails_again_is_a_dead_letter_again_with_its_first_place() -> None:
    """The new letter shows where the record is, and that its second replay failed."""
    orders = failed(partitions=1)
    orders.bad = {8}
    for number in (1, 2):
        orders.driver.replay_dead_letters()
        orders.driver.run()
        letter = orders.driver.dead_letters()[-1]
        read = read_letter(letter.headers)
        assert read is not None
        assert (read[0].origin.topic, read[0].origin.offset) == ("amounts", 7)
        assert (read[0].replay, read[0].tries) == (number, 1)
        assert [name for name, _ in read[1]] == ["event-id"]
        assert len(orders.driver.dead_letters()) == len(BAD) + number
    orders.check(without=frozenset({8}))
    orders.bad = set()
    assert orders.driver.replay_dead_letters() == 1
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_replay_that_fails_is_a_letter_again_whatever_the_handler_says_by_now(policy: Any) -> None:
    """`skip` would lose the replayed record, and `stop` would stop the task because of an old record."""
    orders = failed()
    orders.driver.restart(app=orders.version(on_error=policy))
    orders.bad = {8}
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check(without=frozenset({8}))
    assert len(orders.driver.dead_letters()) == len(BAD) + 1


def test_retries_hold_for_replays_too_and_keep_their_order() -> None:
    """A service that is away for a moment must not make a letter of a letter."""
    orders = failed(partitions=1, retries=2)
    tries: list[int] = []

    def flaky(amount: int) -> None:
        tries.append(amount)
        if amount == 4 and tries.count(4) < 3:
            raise ConnectionError("away")

    app = orders.version(retries=2)

    @app.handler(orders.amounts, retries=2)
    def check(event: Event[str, int], ctx: Context) -> None:
        flaky(event.value)

    orders.driver.restart(app=app)
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()
    assert tries == [3, 4, 4, 4, 8, 11]
    assert len(orders.driver.dead_letters()) == len(BAD)


def test_letters_are_chosen_by_place_partition_error_and_number() -> None:
    """An operator replays one record to test the fix, and then those with the same cause."""
    orders = failed()
    found = list(replayer(orders).plan(Choice(), ReplayReport()))
    assert sorted(int(letter.value or b"") for letter in found) == sorted(BAD)
    assert [
        letter.value for letter in list(replayer(orders).plan(Choice(error="11 is not"), ReplayReport()))
    ] == [b"11"]
    first = found[0]
    assert list(replayer(orders).plan(Choice(ids=[first.id]), ReplayReport())) == [first]
    assert letter_id(first.name) == first.id
    partition = first.letter.origin.partition
    mine = {letter.id for letter in found if letter.letter.origin.partition == partition}
    assert {
        letter.id for letter in list(replayer(orders).plan(Choice(partition=partition), ReplayReport()))
    } == mine
    assert replayer(orders).run(Choice(), most=3).letters == 3
    rest = replayer(orders).run(Choice())
    assert (rest.letters, rest.before) == (1, 3)
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("text", ["17", "0:", ":1", "a:b", "0:-1", "0:1:2"])
def test_what_names_no_letter_is_refused(text: str) -> None:
    """A typing error must not choose all of them."""
    with pytest.raises(InputError, match="is not the id of a dead letter"):
        letter_id(text)


def test_a_letter_whose_topic_is_no_longer_an_input_is_refused_with_what_to_do() -> None:
    """Sent all the same, it would come back as a letter at once."""
    orders = failed()
    app = App("orders")
    app.handler(app.topic("other", key=str, value=int))(orders._add)
    replayed = Replayer(declared_app(app).main, orders.driver.environment(), 500).run(Choice())
    assert replayed.letters == 0
    assert [refused.reason for refused in replayed.refused] == [
        "topic amounts is no longer an input of group main: restore its handler"
    ] * len(BAD)


@pytest.mark.parametrize("partition", [2, 7])
def test_a_letter_of_a_partition_that_there_is_not_is_refused(partition: int) -> None:
    """If its topic had more partitions before, a replay to a missing partition would never succeed."""
    orders = failed()
    letter = orders.driver.broker.records(GROUP.dead_letter_topic)[0]
    headers = [
        (name, b"%d" % partition if name == "dead-letter-partition" else value)
        for name, value in letter.headers() or ()
    ]
    orders.driver.broker.produce(Output(GROUP.dead_letter_topic, None, b"1", 0, headers))
    with pytest.raises(InputError, match=f"the inputs of group main have no partition {partition}"):
        orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


def test_a_letter_of_another_group_is_refused_and_the_others_are_replayed() -> None:
    """If letters of several groups were copied into one topic, each belongs to its own group."""
    orders = failed()
    letter = orders.driver.broker.records(GROUP.dead_letter_topic)[0]
    headers = [
        (name, b"elsewhere" if name == "dead-letter-app" else value) for name, value in letter.headers() or ()
    ]
    orders.driver.broker.produce(Output(GROUP.dead_letter_topic, None, b"1", 0, headers))
    with pytest.raises(InputError, match="cannot be replayed: it is a dead letter of app elsewhere"):
        orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


def test_a_letter_that_is_named_is_found_without_reading_the_others() -> None:
    """A topic of a million letters must answer for one at once."""
    orders = failed(partitions=1)
    letters = list(replayer(orders).plan(Choice(), ReplayReport()))
    read: list[int] = []
    real = orders.driver.broker.read

    def counted(partition: TopicPartition, start: int, **options: Any) -> Any:
        found = real(partition, start, **options)
        read.extend(record.offset() for record in found if partition.topic == GROUP.dead_letter_topic)
        return found

    orders.driver.broker.read = counted  # type: ignore[method-assign]
    ids = [letters[1].id, letters[2].id, (9, 1), (0, 10_000)]
    assert list(replayer(orders).plan(Choice(ids=ids), ReplayReport())) == letters[1:3]
    assert letters[0].offset not in read


def test_a_replay_before_any_worker_of_this_release_says_what_to_do() -> None:
    """An app of an earlier release has letters and no topic for replays."""
    orders = failed()
    orders.driver.broker.delete(GROUP.replays_topic)
    with pytest.raises(ConfigError, match=r"no topic orders\.main\.replays") as caught:
        orders.driver.replay_dead_letters()
    assert "start a worker" in (caught.value.hint or "")


def test_letters_larger_than_the_replays_may_be_are_refused_with_the_setting() -> None:
    """The letters' topic may have been given a higher limit since."""
    orders = failed()
    orders.driver.broker.configure(GROUP.replays_topic, {"max.message.bytes": "300"})
    with pytest.raises(
        InputError, match=r"topic orders\.main\.replays accepts at most 44: raise its max\.message\.bytes"
    ):
        orders.driver.replay_dead_letters()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("sent_again", [False, True])
def test_an_event_of_a_topic_with_dedup_counts_once_whether_replayed_or_sent_again(
    batch: bool, sent_again: bool
) -> None:
    """A record that was given up has left no id behind; one that came again has, and its replay is a duplicate."""
    app = App("unique")
    inputs = app.topic("in", key=str, value=int, dedup=Dedup(ttl_s=3600))
    sums = app.table("sums", key=str, value=int)
    broken = [True]

    def add(event: Event[str, int], ctx: Context) -> None:
        if broken:
            raise ValueError("not yet")
        table = ctx.table(sums)
        table[event.key] = table.get(event.key, 0) + event.value

    def add_all(events: Batch[str, int], ctx: Context) -> None:
        for event in events:
            add(event, ctx)

    if batch:
        app.batch_handler(inputs, on_error="dead_letter")(add_all)
    else:
        app.handler(inputs, on_error="dead_letter")(add)
    driver = TestDriver(app)
    driver.send(inputs, "k", 5, event_id=b"1")
    driver.run()
    broken.clear()
    if sent_again:
        driver.send(inputs, "k", 5, event_id=b"1")
        driver.run()
    for again in (False, True):
        driver.replay_dead_letters(again=again)
        driver.run()
    driver.send(inputs, "k", 5, event_id=b"1")
    driver.run()
    assert driver.table(sums) == {"k": 5}

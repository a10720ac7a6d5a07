"""Dead letters by record: the newest letter of a record stands for it, whatever is done about it."""

from __future__ import annotations

import pytest

from pipeline.core.dead_letters import read_letter
from pipeline.core.names import replay_marks_topic
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.marks import decode_mark
from pipeline.ops.dead_letters.records import FailedRecord, State, failed_records
from pipeline.ops.dead_letters.replaying import ReplayReport
from pipeline.ports import Output
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer


def records(orders: Orders, choice: Choice | None = None) -> list[FailedRecord]:
    topic = orders.driver.broker.describe(GROUP.dead_letter_topic)
    assert topic is not None
    return failed_records(topic, GROUP, choice or Choice(), orders.driver.environment())


def failed_twice(amount: int = 8) -> Orders:
    """A record with three letters: its first one, and one of each of two replays."""
    orders = failed(partitions=1)
    orders.bad = {amount}
    for _ in range(2):
        orders.driver.replay_dead_letters(error=f"{amount} is")
        orders.driver.run()
    orders.bad = set()
    orders.seen.clear()
    return orders


def place_again(orders: Orders, letter: int, changed: dict[str, bytes], partition: int | None = None) -> None:
    """One more letter that is a copy of another one, with other headers."""
    found = orders.driver.broker.records(GROUP.dead_letter_topic)[letter]
    headers = [(name, changed.get(name, value)) for name, value in found.headers() or ()]
    output = Output(GROUP.dead_letter_topic, found.key(), found.value(), 0, headers)
    orders.driver.broker.produce(output, partition=partition)


def test_a_record_that_failed_three_times_is_replayed_once_by_again() -> None:
    """Each of its letters is a copy of the same record: replayed three times, it would count three times."""
    orders = failed_twice()
    assert orders.driver.replay_dead_letters(again=True, error="8 is") == 1
    orders.driver.run()
    assert [event.value for event in orders.seen] == [8]
    assert orders.driver.replay_dead_letters() == len(BAD) - 1
    orders.driver.run()
    orders.check()
    letters = [read_letter(letter.headers) for letter in orders.driver.dead_letters()]
    assert [read[0].replay for read in letters if read is not None] == [0, 0, 0, 0, 1, 2]


def test_any_id_of_a_record_replays_its_newest_letter_once() -> None:
    """The id of an older letter selects the record; two ids of one record select it once."""
    orders = failed_twice()
    (record,) = [record for record in records(orders) if len(record.ids) == 3]
    assert record.newest == record.ids[-1]
    first = Choice(ids=record.ids[:1])
    (planned,) = replayer(orders).plan(first, ReplayReport())
    assert planned.id == record.newest
    assert replayer(orders).run(Choice(ids=record.ids)).letters == 1
    done = replayer(orders).run(first)
    assert (done.letters, done.before) == (0, 1)
    orders.driver.run()
    assert [event.value for event in orders.seen] == [8]


def test_a_record_that_a_reset_made_fail_again_is_replayed_once() -> None:
    """Neither letter is a failed replay of the other, and the first one has no mark."""
    orders = failed(partitions=1)
    orders.bad = set(BAD)
    orders.driver.stop()
    orders.driver.reset()
    orders.driver.restart()
    orders.driver.run()
    orders.bad = set()
    orders.seen.clear()
    assert [len(record.ids) for record in records(orders)] == [2] * len(BAD)
    assert orders.driver.replay_dead_letters() == len(BAD)
    orders.driver.run()
    assert sorted(event.value for event in orders.seen) == sorted(BAD)
    marks = orders.driver.broker.records(replay_marks_topic("orders"))
    assert len(marks) == 2 * len(BAD)  # of the older letters, too


def test_letters_without_a_key_are_grouped_across_partitions() -> None:
    """Kafka places each of them anywhere; the newest is the one that was given up last."""
    orders = Orders(partitions=2)
    broker = orders.driver.broker
    orders.driver.send_raw(orders.amounts, None, b"5")
    orders.driver.run()
    (letter,) = broker.records(GROUP.dead_letter_topic)
    other = 1 - letter.partition()
    place_again(orders, 0, {"dead-letter-time": b"9000000000000"}, partition=other)
    (record,) = records(orders, Choice(ids=[(letter.partition(), letter.offset())]))
    assert record.newest[0] == other
    assert record.meant
    assert len(record.ids) == 2
    assert replayer(orders).run(Choice()).letters == 1


def test_letters_of_earlier_releases_are_grouped_with_those_that_say_more() -> None:
    """They lack the topic's id, and a replay of one that fails has it."""
    orders = failed(partitions=1)
    place_again(orders, 0, {"dead-letter-offset": b"77", "dead-letter-topic-id": b""})
    place_again(orders, 0, {"dead-letter-offset": b"77"})
    place_again(orders, 0, {"dead-letter-offset": b"77", "dead-letter-topic-id": b"another"})
    assert [len(record.ids) for record in records(orders)] == [1] * len(BAD) + [2, 1]


def test_a_letter_of_another_group_is_not_one_of_the_same_record() -> None:
    """It cannot be replayed here, and must not stand for a letter that can."""
    orders = failed(partitions=1)
    place_again(orders, 0, {"dead-letter-group": b"audit"})
    assert [len(record.ids) for record in records(orders)] == [1] * (len(BAD) + 1)
    assert replayer(orders).run(Choice()).letters == len(BAD)


def test_the_state_of_a_record_is_that_of_its_newest_letter() -> None:
    """A mark of an older letter says only that its replay has failed since."""
    orders = failed_twice()
    (record,) = [record for record in records(orders) if len(record.ids) == 3]
    marks = {
        (mark.partition, mark.offset): mark
        for read in orders.driver.broker.records(replay_marks_topic("orders"))
        for mark in [decode_mark(read.value() or b"", "orders")]
    }
    assert set(marks) == set(record.ids[:2])
    assert record.state(marks) is State.OPEN


@pytest.mark.parametrize("wanted", ["8 is", "11 is"])
def test_an_error_chooses_by_the_newest_letter(wanted: str) -> None:
    """What the record failed with before it was repaired in part is over."""
    orders = failed(partitions=1)
    place_again(orders, 2, {"dead-letter-error": b"ValueError: 11 is not", "dead-letter-replay": b"1"})
    meant = [record for record in records(orders, Choice(error=wanted)) if record.meant]
    assert [len(record.ids) for record in meant] == ([] if wanted == "8 is" else [2, 1])

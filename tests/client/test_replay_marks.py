"""Marks: which letters have been replayed."""

from __future__ import annotations

import pytest

from pipeline.client.letters import Choice
from pipeline.client.marks import decode_mark, read_marks
from pipeline.errors import (
    CorruptStateError,
)
from pipeline.ports import Output
from tests.client.orders import GROUP
from tests.client.replay_case import BAD, failed, replayer


def test_marks_say_which_letter_was_replayed_when_and_as_which_replay() -> None:
    """`list` shows them, and they outlive the command."""
    orders = failed()
    topic = orders.driver.broker.describe(GROUP.dead_letter_topic)
    assert topic is not None
    assert read_marks(GROUP, topic.topic_id, orders.driver._world()) == {}
    orders.driver.replay_dead_letters()
    orders.driver.replay_dead_letters(again=True, error="8 is not")
    marks = read_marks(GROUP, topic.topic_id, orders.driver._world())
    assert sorted(mark.times for mark in marks.values()) == [1, 1, 1, 2]
    assert {mark.replayed_ms for mark in marks.values()} == {orders.driver.clock.wall_ms()}
    assert all((mark.partition, mark.offset) == place for place, mark in marks.items())


def test_marks_of_a_dead_letter_topic_that_was_deleted_say_nothing_of_the_new_one() -> None:
    """The same place is another letter then."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.driver.broker.delete(GROUP.dead_letter_topic)
    orders.driver.restart()
    orders.bad = {20, 21, 22}
    orders.send(20, 21, 22)
    orders.driver.run()
    orders.bad = set()
    assert orders.driver.replay_dead_letters() == 3
    orders.driver.run()
    orders.check()


def test_a_mark_that_is_damaged_stops_the_replay_before_anything_is_written() -> None:
    """Taken for no mark, its letter would count twice."""
    orders = failed()
    orders.driver.replay_dead_letters(error="8 is not")
    marks = "pipeline.replays.orders"
    good = orders.driver.broker.records(marks)[0].value() or b""
    assert decode_mark(good, "orders").times == 1
    for bad in (b"{", good.replace(b'"times":1', b'"times":2'), good.replace(b'"version":1', b'"version":9')):
        with pytest.raises(CorruptStateError):
            decode_mark(bad, "orders")
    orders.driver.broker.produce(Output(marks, b"k", b"{", 0))
    with pytest.raises(CorruptStateError, match="cannot be told which dead letters"):
        replayer(orders).run(Choice())
    orders.driver.run()
    orders.check(without=BAD - {8})

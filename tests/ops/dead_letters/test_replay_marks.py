"""Marks: which letters have been replayed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.errors import ConfigError, CorruptStateError
from pipeline.ops.dead_letters import replaying
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.marks import decode_mark, mark_output, read_marks
from pipeline.ops.dead_letters.replaying import ReplayReport
from pipeline.ports import Output, TopicSpec
from tests.support.ops.dead_letters.orders import GROUP
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer


def test_marks_say_which_letter_was_replayed_when_and_as_which_replay() -> None:
    """`list` shows them, and they outlive the command."""
    orders = failed()
    topic = orders.driver.broker.describe(GROUP.dead_letter_topic)
    assert topic is not None
    assert read_marks(GROUP, topic.topic_id, orders.driver.environment()) == {}
    orders.driver.replay_dead_letters()
    orders.driver.replay_dead_letters(again=True, error="8 is not")
    marks = read_marks(GROUP, topic.topic_id, orders.driver.environment())
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
    with pytest.raises(CorruptStateError, match="it is unknown which dead letters"):
        replayer(orders).run(Choice())
    orders.driver.run()
    orders.check(without=BAD - {8})


def test_marks_of_another_group_say_nothing_of_this_one() -> None:
    """Letters of two groups have the same places, and share the topic of marks: one would never be replayed."""
    orders = failed()
    orders.driver.replay_dead_letters(error="8 is not")
    broker = orders.driver.broker
    mark = decode_mark(broker.records("pipeline.replays.orders")[0].value() or b"", "orders")
    for letter in broker.records(GROUP.dead_letter_topic):
        broker.produce(
            mark_output(replace(mark, group="other", partition=letter.partition(), offset=letter.offset()))
        )
    assert orders.driver.replay_dead_letters() == len(BAD) - 1
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("spec", [{"partitions": 2}, {"config": {"cleanup.policy": "delete"}}], ids=repr)
def test_a_topic_of_marks_that_would_forget_them_is_refused(spec: dict[str, Any]) -> None:
    """After a week every letter would be replayed a second time."""
    orders = failed()
    config = {"cleanup.policy": "compact"}
    orders.driver.broker.create(
        TopicSpec(**{"name": "pipeline.replays.orders", "partitions": 1, "config": config, **spec})
    )
    with pytest.raises(ConfigError, match=r"must have 1 partition and cleanup\.policy=compact"):
        replayer(orders).run(Choice())
    orders.driver.run()
    assert orders.seen == []


def test_a_plan_leaves_out_what_was_replayed() -> None:
    """`--dry-run` says what the command would do, not what was wrong once."""
    orders = failed()
    orders.driver.replay_dead_letters(error="8 is not")
    known = ReplayReport()
    assert len(list(replayer(orders).plan(Choice(), known))) == len(BAD) - 1
    assert known.before == 1


@pytest.mark.parametrize(("letters", "bytes_", "commits"), [(2, 1 << 20, 2), (500, 1, 4), (500, 1 << 20, 1)])
def test_letters_are_committed_in_batches_of_a_size(
    letters: int, bytes_: int, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million letters, or a thousand of a megabyte each, do not fit into one transaction."""
    monkeypatch.setattr(replaying, "BATCH_LETTERS", letters)
    monkeypatch.setattr(replaying, "BATCH_BYTES", bytes_)
    orders = failed()
    told: list[int] = []
    assert replayer(orders).run(Choice(), progress=told.append).letters == len(BAD)
    assert len(told) == commits
    assert told[-1] == len(BAD)
    nonces = {
        decode_mark(record.value() or b"", "orders").nonce
        for record in orders.driver.broker.records("pipeline.replays.orders")
    }
    assert len(nonces) == commits
    orders.driver.run()
    orders.check()

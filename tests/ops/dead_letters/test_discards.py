"""Records that are discarded, and letters that are purged."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.app import declared_app
from pipeline.core.names import TopicPartition, replay_marks_topic
from pipeline.errors import AbortableError, CorruptStateError, UnknownOutcomeError
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.marks import decode_mark
from pipeline.ops.dead_letters.purging import plan_purge, purge
from pipeline.ops.dead_letters.replaying import Discarder, ReplayReport
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer

ID = GROUP.replay_transactional_id
MARKS = replay_marks_topic("orders")


class Crash(BaseException):
    """The command's process is gone."""


def discard(orders: Orders, choice: Choice | None = None) -> ReplayReport:
    return Discarder(declared_app(orders.app).main, orders.driver.environment(), 500).run(choice or Choice())


def letters(orders: Orders) -> int:
    return len(orders.driver.broker.records(GROUP.dead_letter_topic))


def test_a_discarded_record_is_not_replayed_until_someone_asks_again() -> None:
    """Its mark is one that releases before this one take for a replay's, so that they leave it alone, too."""
    orders = failed()
    assert discard(orders, Choice(error="8 is")).letters == 1
    (record,) = orders.driver.broker.records(MARKS)
    data = record.value() or b""
    mark = decode_mark(data, "orders")
    assert (mark.discarded, mark.times, mark.replay) == (True, 0, 0)
    envelope = msgspec.json.decode(data)
    assert "discarded" not in envelope["mark"]
    with pytest.raises(CorruptStateError, match="checksum"):
        decode_mark(data.replace(envelope["discarded"].encode(), b"0" * 16), "orders")
    assert discard(orders, Choice(error="8 is")).discarded == 1
    assert orders.driver.replay_dead_letters() == len(BAD) - 1
    orders.driver.run()
    orders.check(without=frozenset({8}))
    assert orders.driver.replay_dead_letters(again=True, error="8 is") == 1
    orders.driver.run()
    orders.check()
    assert decode_mark(orders.driver.broker.records(MARKS)[-1].value() or b"", "orders").times == 1


def test_a_discard_needs_no_topic_of_replays() -> None:
    """Letters of a group that has been given up must be possible to clear away."""
    orders = failed()
    orders.driver.stop()
    orders.driver.broker.delete(GROUP.replays_topic)
    assert discard(orders).letters == len(BAD)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "begin", "send", "flush", "commit"])
@pytest.mark.parametrize("error", [Crash, AbortableError, UnknownOutcomeError])
def test_a_discard_that_fails_anywhere_marks_every_record_once(
    call: str, after: bool, error: type[BaseException]
) -> None:
    """A record is open or discarded, whatever happens to the command."""
    orders = failed()
    orders.driver.broker.fail_next(call, error("ordered"), after=after, where=ID)
    try:
        discard(orders)
    except (Crash, AbortableError, UnknownOutcomeError):
        discard(orders)
    assert replayer(orders).run(Choice()).discarded == len(BAD)
    assert len(orders.driver.broker.records(MARKS)) == len(BAD)


def test_a_purge_deletes_up_to_the_first_open_letter_of_each_partition() -> None:
    """Kafka deletes beginnings only, and an open letter is the last copy of nothing else."""
    orders = failed(partitions=1)  # letters 3, 4, 8, 11
    for error in ("3 is", "8 is"):
        orders.driver.replay_dead_letters(error=error)
    discard(orders, Choice(error="4 is"))
    orders.driver.run()
    environment = orders.driver.environment()
    planned = plan_purge(GROUP, environment)
    assert (planned.letters, planned.open, planned.waiting, planned.behind) == (3, 1, 0, 0)
    assert letters(orders) == 4
    assert purge(GROUP, environment, 500) == planned
    assert letters(orders) == 1
    assert orders.driver.replay_dead_letters() == 1
    orders.driver.run()
    orders.check(without=frozenset({4}))


def test_a_purge_deletes_older_letters_of_a_record_that_is_open() -> None:
    """The newest letter has all that there is to know of it."""
    orders = failed(partitions=1)
    orders.bad = set(BAD)
    orders.driver.replay_dead_letters()
    orders.driver.run()
    assert purge(GROUP, orders.driver.environment(), 500).letters == len(BAD)
    orders.bad = set()
    assert orders.driver.replay_dead_letters() == len(BAD)
    orders.driver.run()
    orders.check()


def test_a_purge_keeps_a_letter_whose_replay_waits() -> None:
    """Until a worker has handled the replay, the letter is what an operator can look at."""
    orders = failed(partitions=1)  # letters 3, 4, 8, 11
    orders.driver.replay_dead_letters(error="3 is")
    orders.driver.run()
    orders.driver.replay_dead_letters(error="4 is")
    discard(orders)
    waiting = purge(GROUP, orders.driver.environment(), 500)
    assert (waiting.letters, waiting.open, waiting.waiting, waiting.behind) == (1, 0, 1, 2)
    assert letters(orders) == 3
    orders.driver.run()
    handled = purge(GROUP, orders.driver.environment(), 500)
    assert (handled.letters, handled.open, handled.waiting, handled.behind) == (3, 0, 0, 0)
    assert letters(orders) == 0


def test_a_purge_knows_the_waiting_replays_of_each_task() -> None:
    """The position of one task says nothing about the replays of another."""
    orders = failed(partitions=3)
    orders.driver.replay_dead_letters()
    waiting = plan_purge(GROUP, orders.driver.environment())
    assert (waiting.letters, waiting.open, waiting.waiting) == (0, 0, len(BAD))
    orders.bad = set(BAD)
    orders.driver.run()
    failed_again = plan_purge(GROUP, orders.driver.environment())
    assert (failed_again.letters, failed_again.open, failed_again.waiting) == (len(BAD), len(BAD), 0)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "truncate", "begin", "send", "commit"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_purge_that_crashes_anywhere_deletes_no_open_letter(call: str, after: bool, nth: int) -> None:
    """And the next one removes what is left, marks included."""
    orders = failed()
    orders.driver.replay_dead_letters(error="8 is")
    orders.driver.replay_dead_letters(error="3 is")
    orders.driver.run()
    for _ in range(nth - 1):
        purge(GROUP, orders.driver.environment(), 500)
        orders.driver.replay_dead_letters(error="4 is")
        orders.driver.run()
    where = ID if call != "truncate" else None
    orders.driver.broker.fail_next(call, Crash(), after=after, where=where)
    with pytest.raises(Crash):
        purge(GROUP, orders.driver.environment(), 500)
    left = purge(GROUP, orders.driver.environment(), 500)
    assert left.open == len(BAD) - 1 - nth
    orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


def test_a_purge_removes_the_marks_of_the_letters_that_it_deletes() -> None:
    """The topic of marks would grow forever; a mark of a letter that stays must stay, too."""
    orders = failed(partitions=1)
    orders.driver.replay_dead_letters(error="3 is")
    orders.driver.replay_dead_letters(error="8 is")
    orders.driver.run()
    purge(GROUP, orders.driver.environment(), 500)
    removed = [record.key() for record in orders.driver.broker.records(MARKS) if record.value() is None]
    assert removed == [b"orders/main/0/0"]
    assert orders.driver.broker.bounds(TopicPartition(GROUP.dead_letter_topic, 0))[0] > 0
    assert orders.driver.replay_dead_letters() == 2
    orders.driver.run()
    orders.check()

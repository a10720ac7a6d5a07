"""Transactional batches on the in-memory Kafka: whole or not at all, and never twice by themselves."""

from __future__ import annotations

import re
import threading
from contextlib import suppress

import pytest

from pipeline import App, Event
from pipeline.config import ProducerSettings
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FencedError,
    PipelineError,
    ProducerClosedError,
    QueueFullError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import TopicSpec
from pipeline.producing.transactions import TransactionalSender
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryProducers

app = App("shop")
orders = app.topic("orders", key=str, value=int)
FENCE = "pipeline.producer.till-1"
NOTHING = "nothing of the transaction was written"


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.create(TopicSpec("orders", 1))
    return made


@pytest.fixture
def sender(broker: MemoryBroker) -> TransactionalSender:
    return TransactionalSender(MemoryProducers(broker), "till-1", ProducerSettings(max_block_s=0.01))


def ids(broker: MemoryBroker) -> list[bytes]:
    """Of committed events."""
    return [Event("k", 1, record).id or b"" for record in broker.records("orders")]


def write(sender: TransactionalSender, *names: str) -> None:
    with sender.transaction() as batch:
        for name in names:
            batch.send(orders, "k", 1, id=name)


class Stopped(Exception):  # noqa: N818 - what a caller raises is no error of ours
    """The caller's own."""


def test_a_batch_is_there_whole_after_its_block(broker: MemoryBroker, sender: TransactionalSender) -> None:
    """Also one that is passed on in several parts."""
    write(sender, *(str(n) for n in range(1200)))
    write(sender, "last")
    assert ids(broker) == [*(b"%d" % n for n in range(1200)), b"last"]


def test_an_exception_in_the_block_leaves_nothing_and_reaches_the_caller(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """Half an order is worse than none."""

    def stop() -> None:
        with sender.transaction() as batch:
            for n in range(600):
                batch.send(orders, "k", n)
            raise Stopped

    with pytest.raises(Stopped):
        stop()
    write(sender, "after")
    assert ids(broker) == [b"after"]


def test_an_event_that_cannot_be_sent_ends_the_whole_batch(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """The others would be a part."""

    def send() -> None:
        with sender.transaction() as batch:
            batch.send(orders, "k", 1)
            batch.send(orders, "k", "one")  # type: ignore[misc]

    with pytest.raises(TypeError, match="topic orders"):
        send()
    assert ids(broker) == []


def test_a_refused_event_fails_the_batch_though_it_is_caught(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """A caller that logs and continues would otherwise commit the others: a part of the batch."""

    def send() -> None:
        with sender.transaction() as batch:
            batch.send(orders, "k", 1, id="1")
            with pytest.raises(TypeError):
                batch.send(orders, "k", "one", id="2")  # type: ignore[misc]
            with pytest.raises(AbortableError, match="the batch has failed"):
                batch.send(orders, "k", 3, id="3")

    with pytest.raises(
        AbortableError, match=rf"event 2 or one before it was refused \(topic orders: .*{NOTHING}"
    ):
        send()
    assert ids(broker) == []
    write(sender, "after")
    assert ids(broker) == [b"after"]


def test_a_part_that_the_client_refuses_fails_the_batch_though_it_is_caught(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """The client takes events in parts: what was in the refused part is gone, and what was before it is not."""

    def send() -> None:
        with sender.transaction() as batch:
            for n in range(1200):
                if n == 700:
                    broker.fail_next("send", AbortableError("a record is too large"))
                with suppress(AbortableError):
                    batch.send(orders, "k", 1, id=str(n))

    with pytest.raises(AbortableError, match=f"a record is too large.*{NOTHING}"):
        send()
    assert ids(broker) == []


@pytest.mark.parametrize("call", ["begin", "send", "flush", "commit"])
def test_a_batch_that_was_aborted_says_that_nothing_was_written(
    broker: MemoryBroker, sender: TransactionalSender, call: str
) -> None:
    """So its block may simply run again."""
    broker.fail_next(call, AbortableError("a delivery failed"))
    with pytest.raises(AbortableError, match=f"a delivery failed: {NOTHING}"):
        write(sender, "1")
    assert ids(broker) == []
    write(sender, "1")
    assert ids(broker) == [b"1"]


@pytest.mark.parametrize("happened", [False, True])
def test_an_unknown_outcome_is_raised_and_the_batch_never_repeated_by_itself(
    broker: MemoryBroker, sender: TransactionalSender, happened: bool
) -> None:
    """A silent retry would double it; sent again under the same ids, it can be recognised."""
    broker.fail_next("commit", UnknownOutcomeError("no answer"), after=happened)
    with pytest.raises(UnknownOutcomeError, match="whole or not at all") as caught:
        write(sender, "1", "2")
    assert "same event ids" in (caught.value.hint or "")
    write(sender, "1", "2")
    assert ids(broker) == [b"1", b"2"] * (2 if happened else 1)


@pytest.mark.parametrize("call", ["begin", "send", "flush"])
def test_what_is_unknown_before_the_commit_is_known_not_to_be_written(
    broker: MemoryBroker, sender: TransactionalSender, call: str
) -> None:
    """The caller did not request a commit."""
    for count in (1, 1000):  # passed on at the end, and within the block
        broker.fail_next(call, UnknownOutcomeError("no answer"))
        with pytest.raises(AbortableError, match=NOTHING):
            write(sender, *map(str, range(count)))
    write(sender, "last")
    assert ids(broker) == [b"last"]


@pytest.mark.parametrize(("call", "said"), [("flush", NOTHING), ("commit", "whole or not at all")])
def test_a_fenced_producer_is_at_its_end(
    broker: MemoryBroker, sender: TransactionalSender, call: str, said: str
) -> None:
    """The newer producer continues; otherwise two producers would abort each other's transactions."""
    broker.fail_next(call, FencedError("a newer producer"))
    with pytest.raises(FencedError, match=said):
        write(sender, "1")
    with pytest.raises(FencedError, match="a newer producer"):
        write(sender, "2")
    assert ids(broker) == []


def test_a_newer_producer_of_the_same_id_ends_what_the_older_one_has_open(broker: MemoryBroker) -> None:
    """A restarted service need not wait for the time-out of what it left open."""
    old = TransactionalSender(MemoryProducers(broker), "till-1", ProducerSettings())
    new = TransactionalSender(MemoryProducers(broker), "till-1", ProducerSettings())

    def overlap() -> None:
        with old.transaction() as batch:
            batch.send(orders, "k", 1, id="old")
            write(new, "new")

    with pytest.raises(FencedError):
        overlap()
    assert ids(broker) == [b"new"]


def test_a_kafka_that_is_away_is_told_before_anything_is_sent(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """The caller tries again."""
    broker.fail_next("init", UnreachableError("no broker"))
    with pytest.raises(UnreachableError):
        write(sender, "1")
    write(sender, "1")
    assert ids(broker) == [b"1"]


def test_after_a_bad_end_the_next_batch_begins_with_a_fence(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """A late request of the last transaction must not end the next one."""
    write(sender, "1")
    inits = broker._producers[FENCE].epoch
    write(sender, "2")
    assert broker._producers[FENCE].epoch == inits
    broker.fail_next("commit", UnknownOutcomeError("no answer"))
    with pytest.raises(UnknownOutcomeError):
        write(sender, "3")
    write(sender, "3")
    assert broker._producers[FENCE].epoch == inits + 1


def test_transactions_do_not_nest(sender: TransactionalSender) -> None:
    """The inner one would end the outer one."""
    with sender.transaction(), pytest.raises(ProducerClosedError, match="open on this thread already"):
        write(sender, "1")


def test_threads_take_turns_and_do_not_wait_forever(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """A transaction has one owner; events of another thread must not slip into it."""
    failures: list[PipelineError] = []

    def other() -> None:
        try:
            write(sender, "other")
        except PipelineError as error:
            failures.append(error)

    with sender.transaction() as batch:
        batch.send(orders, "k", 1, id="mine")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert isinstance(failures[0], QueueFullError)
    assert ids(broker) == [b"mine"]


def test_a_batch_that_is_over_takes_nothing(sender: TransactionalSender) -> None:
    """The event would be in no transaction."""
    with sender.transaction() as batch:
        pass
    with pytest.raises(ProducerClosedError, match="the transaction is over"):
        batch.send(orders, "k", 1)


def test_a_closed_producer_begins_nothing(sender: TransactionalSender) -> None:
    """Use after close is a mistake that is told."""
    sender.close()
    sender.close()
    with pytest.raises(ProducerClosedError, match="the producer is closed"):
        write(sender, "1")


@pytest.mark.parametrize("own", [False, True], ids=["another-thread", "the-thread-of-the-block"])
def test_a_close_under_an_open_transaction_does_not_wait_forever_and_does_not_end_it(
    broker: MemoryBroker, sender: TransactionalSender, own: bool
) -> None:
    """A service that stops must come to its end, and what it has promised to a caller must not be half done."""
    with sender.transaction() as batch:
        batch.send(orders, "k", 1, id="1")
        if own:
            sender.close()
        else:
            thread = threading.Thread(target=sender.close)
            thread.start()
            thread.join()
        batch.send(orders, "k", 1, id="2")
    assert ids(broker) == [b"1", b"2"]
    assert not sender._engine.has_client
    with pytest.raises(ProducerClosedError, match="the producer is closed"):
        write(sender, "3")


def test_a_child_must_have_an_id_of_its_own(sender: TransactionalSender) -> None:
    """Under its parent's id it would abort its parent's transactions."""
    write(sender, "1")
    sender._forked()
    with pytest.raises(ProducerClosedError, match="before this process was forked"):
        write(sender, "2")


def test_a_child_forked_inside_a_block_commits_nothing(
    broker: MemoryBroker, sender: TransactionalSender
) -> None:
    """The open transaction is its parent's."""

    def fork_inside() -> None:
        with sender.transaction() as batch:
            batch.send(orders, "k", 1, id="1")
            sender._forked()

    with pytest.raises(ProducerClosedError, match="before this process was forked"):
        fork_inside()
    assert ids(broker) == []


@pytest.mark.parametrize("name", ["", "a/b"])
def test_an_id_that_kafka_tools_could_not_name_is_refused(broker: MemoryBroker, name: str) -> None:
    """It is part of a durable name."""
    with pytest.raises(ConfigError, match=re.escape(repr(name))):
        TransactionalSender(MemoryProducers(broker), name, ProducerSettings())

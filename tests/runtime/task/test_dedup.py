"""Duplicates in a running app: dropped once their first one is committed, and never too many of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Batch, Context, Dedup, Event, OnError
from pipeline.core.dedup import expiry_prefix, id_prefix
from pipeline.core.names import EVENT_ID_HEADER, TaskId
from pipeline.errors import HandlerError
from pipeline.ports import Step
from pipeline.runtime import plan
from pipeline.runtime.worker import Worker
from pipeline.testing import TestDriver
from tests.support.runtime.checkpointed import EAGER
from tests.support.runtime.fleet import Fleet
from tests.support.runtime.steps import COMMIT_STEPS

TTL_S = 60
BAD = 13


class Shop:
    """Counts orders that may be sent twice. `fixed`: the handler accepts the records that failed before."""

    def __init__(
        self,
        *,
        on_error: OnError = "stop",
        batch: bool = False,
        partitions: int = 1,
        retries: int = 0,
        **more: Any,
    ) -> None:
        self.app = App("shop")
        self.dropped = self.app.topic("dropped", key=bytes, value=bytes)
        self.orders = self.app.topic(
            "orders", key=str, value=int, dedup=Dedup(ttl_s=TTL_S, duplicates_to=self.dropped)
        )
        self.totals = self.app.table("totals", key=str, value=int)
        self.outs = self.app.topic("outs", key=str, value=int)
        self.fixed = False
        if batch:
            self.app.batch_handler(self.orders, on_error=on_error, retries=retries)(self.add_all)
        else:
            self.app.handler(self.orders, on_error=on_error, retries=retries)(self.add)
        self.calls: list[list[int]] = []
        self.driver = TestDriver(self.app, partitions=partitions, **more)

    def add(self, event: Event[str, int], ctx: Context) -> None:
        self.calls.append([event.value])
        self.count(event, ctx)

    def add_all(self, batch: Batch[str, int], ctx: Context) -> None:
        self.calls.append(list(batch.values))
        for event in batch:
            self.count(event, ctx)

    def count(self, event: Event[str, int], ctx: Context) -> None:
        total = ctx.table(self.totals).get(event.key, 0) + event.value
        ctx.table(self.totals)[event.key] = total
        ctx.send(self.outs, event.key, total)
        if event.value == BAD and not self.fixed:
            raise ValueError("unlucky")

    def send(self, *values: int, key: str = "a", after_ms: int = 0) -> None:
        """Orders whose ids are their values; `after_ms`: of the driver's beginning."""
        for value in values:
            when = self.driver.clock.wall_ms() if not after_ms else START_MS + after_ms
            self.driver.send(self.orders, key, value, event_id=b"%d" % value, timestamp_ms=when)

    def run(self, *values: int, **more: Any) -> None:
        self.send(*values, **more)
        self.driver.run()

    @property
    def results(self) -> list[int]:
        return [event.value for event in self.driver.outputs(self.outs)]

    def rows(self, prefix: bytes = id_prefix("orders")) -> int:
        contents = self.driver.stores.contents(TaskId("shop", "main", 0))
        return sum(key.startswith(prefix) for key in contents)

    @property
    def worker(self) -> Worker:
        return self.driver.worker


START_MS = TestDriver(App("none")).clock.wall_ms()


@pytest.mark.parametrize("batch", [False, True])
def test_an_event_that_is_sent_again_counts_once(batch: bool) -> None:
    """In one poll, in one commit, and after it; duplicates are counted, and go where they were asked to."""
    shop = Shop(batch=batch)
    shop.run(1, 1, 2, 1)
    shop.run(2, 3)
    assert shop.results == [1, 3, 6]
    assert shop.driver.table(shop.totals) == {"a": 6}
    assert shop.worker.progress().duplicates == 3
    assert shop.worker.progress().records == 6
    copies = shop.driver.outputs(shop.dropped)
    assert [(event.key, event.value) for event in copies] == [(b"a", b"1"), (b"a", b"1"), (b"a", b"2")]
    assert copies[2].headers == [
        (EVENT_ID_HEADER, b"2"),
        ("duplicate-topic", b"orders"),
        ("duplicate-partition", b"0"),
        ("duplicate-offset", b"4"),
    ]


def test_a_poll_of_nothing_but_duplicates_moves_the_position() -> None:
    """They would be read again and again."""
    shop = Shop(batch=True)
    shop.run(1)
    shop.run(1, 1)
    assert shop.calls == [[1]]
    shop.driver.restart()
    shop.driver.run()
    assert shop.worker.progress().records == 0


@pytest.mark.parametrize("disk", ["kept", "lost"])
@pytest.mark.parametrize("step", [*COMMIT_STEPS, Step.BEFORE_RETIRE])
def test_a_duplicate_across_a_crash_at_each_step_of_a_commit_counts_once(step: Step, disk: str) -> None:
    """The ids are in the commit that has what their events did: never one without the other."""
    shop = Shop(deferred=True)
    shop.run(1, 2)
    shop.driver.crash_at(step)
    shop.run(3, 4, 3)
    assert shop.driver.crashed
    shop.driver.restart(empty_disk=disk == "lost")
    shop.run(3, 1, 4, 5, 2)
    shop.driver.restart(empty_disk=True)
    shop.run(5, 3, 1)
    assert shop.results == [1, 3, 6, 10, 15]
    assert shop.driver.table(shop.totals) == {"a": 15}


@pytest.mark.parametrize("seed", range(8))
def test_a_duplicate_of_an_event_whose_commit_is_under_way_is_dropped(seed: int) -> None:
    """Its id is neither open any more nor in the store yet."""
    shop = Shop(deferred=True, seed=seed, settings=None)
    shop.driver.run()
    for value in (1, 2, 3):
        shop.send(value)
        shop.driver.step()
        shop.driver.clock.advance(1.0)
        shop.driver.step()  # sealed, and not published before the executor's turn
        shop.send(value, value)
        shop.driver.step()
    shop.driver.run()
    assert shop.results == [1, 3, 6]


@pytest.mark.parametrize(("more_ms", "results"), [(0, [1, 3]), (1, [1, 3, 4])])
def test_an_id_is_remembered_for_exactly_its_time_to_live(more_ms: int, results: list[int]) -> None:
    """The edge by the clock of the records, however late they are read; one that comes later is counted as late."""
    shop = Shop()
    shop.run(1, after_ms=1)
    shop.driver.clock.advance(3 * TTL_S)
    shop.run(2, 1, after_ms=1 + TTL_S * 1000 + more_ms)
    assert shop.results == results
    assert shop.worker.progress().late_duplicates == more_ms
    assert shop.worker.progress().duplicates == 1 - more_ms


def test_a_timestamp_from_the_far_future_forgets_nothing() -> None:
    """Else one broken producer would let every duplicate through."""
    shop = Shop()
    shop.run(1)
    shop.run(2, after_ms=10**12)
    shop.driver.clock.advance(1.0)
    shop.run(1)
    assert shop.results == [1, 3]
    shop.driver.clock.advance(TTL_S + 1.0)
    shop.run(3)
    shop.run(1)  # in the end it is forgotten: the clock was not taken into the future
    assert shop.results == [1, 3, 6, 7]


@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_restart_does_not_turn_the_clock_back(empty_disk: bool) -> None:
    """A new owner decides as the old one would have: ids of old records are not forgotten early."""
    shop = Shop()
    shop.driver.clock.advance(3 * TTL_S)
    shop.run(1, after_ms=1)
    shop.run(2, after_ms=TTL_S * 1000 + 2)
    shop.driver.restart(empty_disk=empty_disk)
    shop.run(3, after_ms=1)
    shop.run(3, after_ms=TTL_S * 2 * 1000 + 2)
    assert shop.results == [1, 3, 6]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_a_rejected_record_leaves_no_id_behind(on_error: OnError, batch: bool) -> None:
    """Its next copy may be a replay after a fix of the handler: it must be processed once."""
    shop = Shop(on_error=on_error, batch=batch)
    shop.run(1, BAD, 2, BAD)  # the second one is no duplicate: nothing was done for the first
    assert shop.results == [1, 3]
    assert shop.worker.progress().duplicates == 0
    shop.fixed = True
    shop.run(BAD, BAD, 1)
    assert shop.results == [1, 3, 3 + BAD]
    assert shop.worker.progress().duplicates == 2


@pytest.mark.parametrize("sent_again", ["before the replay", "after the replay"])
def test_a_replay_and_a_copy_of_a_dead_letter_count_once_between_them(sent_again: str) -> None:
    """After a fix the operator replays, while the producer may have sent the event again."""
    shop = Shop(on_error="dead_letter")
    shop.run(1, BAD)
    shop.fixed = True
    if sent_again == "before the replay":
        shop.run(BAD)
    assert shop.driver.replay_dead_letters() == 1
    shop.driver.run()
    shop.run(BAD, 2)
    assert shop.results == [1, 1 + BAD, 3 + BAD]
    assert shop.worker.progress().duplicates == 1 + (sent_again == "before the replay")


@pytest.mark.parametrize("batch", [False, True])
def test_a_record_that_stops_its_task_is_processed_once_it_can_be(batch: bool) -> None:
    """What came before it is committed with its ids, and it is not among them."""
    shop = Shop(batch=batch)
    with pytest.raises(HandlerError, match="unlucky"):
        shop.run(1, 2, BAD, 4)
    shop.fixed = True
    shop.driver.restart()
    shop.run(2, BAD)
    assert shop.results == [1, 3, 3 + BAD, 7 + BAD]


@pytest.mark.parametrize("batch", [False, True])
def test_a_record_that_is_tried_again_is_no_duplicate_of_itself(batch: bool) -> None:
    """Its id counts from its success on."""
    shop = Shop(retries=5, batch=batch)
    shop.send(1, BAD, BAD, 2)
    while len(shop.calls) < 3:
        shop.driver.step()
        shop.driver.clock.advance(1.0)
    shop.fixed = True
    shop.driver.run()
    assert shop.results == [1, 1 + BAD, 3 + BAD]
    assert shop.worker.progress().duplicates == 1


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("on_error", ["stop", "skip", "dead_letter"])
def test_a_record_without_an_id_is_an_error_of_that_record(on_error: OnError, batch: bool) -> None:
    """It may be a duplicate of anything. Others are processed; it is not tried again, for it stays as it is."""
    shop = Shop(on_error=on_error, batch=batch, retries=3)
    shop.send(1)
    shop.driver.send(shop.orders, "a", 2)
    shop.driver.send(shop.orders, "a", 3, event_id=b"")
    shop.send(4)
    if on_error == "stop":
        with pytest.raises(
            HandlerError, match=r"orders\[0\] offset 1 .* the record has no id: .*event-id"
        ) as caught:
            shop.driver.run()
        assert "pipeline produce --id" in caught.value.message
        assert shop.results == [1]
        return
    shop.driver.run()
    assert shop.results == [1, 5]
    assert shop.worker.progress().skipped == 2 * (on_error == "skip")
    assert [event.value for event in shop.driver.dead_letters()] == [b"2", b"3"] * (on_error == "dead_letter")
    assert shop.worker.progress().retried == 0


def test_several_handlers_of_a_topic_share_the_check_and_each_group_has_its_own() -> None:
    """The second handler must not take the event for a duplicate of what the first one got."""
    app = App("shop")
    orders = app.topic("orders", key=str, value=int, dedup=Dedup(ttl_s=TTL_S))
    other = app.group("other")
    calls: list[str] = []
    app.handler(orders, on_error="skip")(lambda event, _: calls.append(f"first {event.value}"))

    @app.handler(orders, on_error="skip")
    def second(event: Event[str, int], _ctx: Context) -> None:
        calls.append(f"second {event.value}")
        if event.value == BAD:
            raise ValueError("unlucky")

    other.handler(orders)(lambda event, _: calls.append(f"other {event.value}"))
    driver = TestDriver(app)
    for value in (1, 1, BAD, BAD):
        driver.send(orders, "a", value, event_id=b"%d" % value)
    driver.run()
    assert [call for call in calls if "other" not in call] == [
        "first 1",
        "second 1",
        *["first 13", "second 13"] * 2,
    ]
    assert [call for call in calls if "other" in call] == ["other 1", "other 13"]


@pytest.mark.parametrize("batch", [False, True])
def test_an_id_can_be_taken_from_the_event(batch: bool) -> None:
    """Many events have a number of their own; str and bytes are the same id, and what is neither is refused."""
    found: dict[int, Any] = {1: "one", 2: b"one", 3: "three", 4: None, 5: "", 6: "\ud800"}
    app = App("shop")
    orders = app.topic(
        "orders", key=str, value=int, dedup=Dedup(ttl_s=TTL_S, id=lambda event: found[event.value])
    )
    calls: list[int] = []
    if batch:
        app.batch_handler(orders, on_error="skip")(lambda some, _: calls.extend(some.values))
    else:
        app.handler(orders, on_error="skip")(lambda event, _: calls.append(event.value))
    driver = TestDriver(app)
    for value in (1, 2, 3, 4, 5, 6, 7, 3):
        driver.send(orders, "a", value)
    driver.send_raw(orders, b"a", b"no number")
    driver.run()
    assert calls == [1, 3]
    assert [said["error"] for said in driver.log_events("record_rejected")] == [
        "TypeError",
        "ValueError",
        "UnicodeEncodeError",
        "KeyError",
        "DecodeError",
    ]


def test_a_duplicate_under_another_key_in_another_partition_passes() -> None:
    """As the document says: what a task knows is what its partition had."""
    shop = Shop(partitions=2)
    keys = ("a", "c")
    shop.driver.send(shop.orders, keys[0], 1, event_id=b"1", partition=0)
    shop.driver.send(shop.orders, keys[1], 1, event_id=b"1", partition=1)
    shop.driver.send(shop.orders, keys[1], 1, event_id=b"1", partition=0)
    shop.driver.run()
    assert shop.driver.table(shop.totals) == {"a": 1, "c": 1}


def test_a_duplicate_that_its_topic_would_refuse_is_an_error_of_that_record() -> None:
    """With it Kafka would refuse the whole commit, again and again."""
    app = App("shop")
    dropped = app.topic("dropped", key=bytes, value=bytes)
    orders = app.topic("orders", value=bytes, dedup=Dedup(ttl_s=TTL_S, duplicates_to=dropped))
    app.handler(orders, on_error="skip")(lambda _event, _ctx: None)
    driver = TestDriver(app)
    for _ in range(3):
        driver.send(orders, None, bytes(plan.DEFAULT_MAX_MESSAGE_BYTES - 300), event_id=b"1")
    driver.run()
    assert driver.outputs(dropped) == []
    assert [said["message"].split(" (")[0] for said in driver.log_events("record_rejected")] == [
        f"a record of {plan.DEFAULT_MAX_MESSAGE_BYTES - 300 + 99} bytes is over the limit of topic dropped"
    ] * 2


def test_what_is_over_leaves_the_disk_with_the_commits_that_follow() -> None:
    """The table is as large as what was seen within the time-to-live, and not as all that ever was."""
    shop = Shop()
    for start in range(1000, 6000, 500):
        shop.run(*range(start, start + 500))
        shop.driver.clock.advance(TTL_S / 2)
        assert shop.rows() <= 4 * 500
    for value in range(6000, 6010):
        shop.driver.clock.advance(TTL_S)
        shop.run(value)
    assert shop.rows() <= 2
    assert shop.rows(expiry_prefix("orders")) <= 2


def test_a_restore_from_a_checkpoint_remembers_what_the_journal_has_no_more() -> None:
    """Ids are rows like others, so a checkpoint has them."""
    shop = Shop(settings=EAGER)
    for value in range(1, 9):
        shop.run(value)
    journal = TaskId("shop", "main", 0).journal
    assert shop.driver.broker.bounds(journal)[0] > 0
    shop.driver.restart(empty_disk=True)
    shop.run(*range(1, 9), 9)
    assert shop.results == [sum(range(1, n + 1)) for n in range(1, 10)]


def test_a_reset_forgets_the_ids_with_the_rest_of_the_state() -> None:
    """Else nothing that is read again would be processed."""
    shop = Shop()
    shop.run(1, 2, 1)
    shop.driver.reset()
    shop.driver.run()
    assert shop.driver.table(shop.totals) == {"a": 3}
    assert shop.results == [1, 3, 1, 3]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_duplicates_are_known_to_the_next_owner(end: str) -> None:
    """Across a worker's death and across a handoff: the ids move with the task."""
    fleet = Fleet(partitions=6, dedup=Dedup(ttl_s=3600))
    fleet.start("a")
    fleet.start("b")
    fleet.send()
    fleet.settle()
    fleet.start("c")  # tasks move by a release
    for _ in range(20):
        fleet.send()
        fleet.sums.send_again(fleet.random.choices(range(len(fleet.sums.sent)), k=10))
        fleet.run(0.2)
    (fleet.kill if end == "kill" else fleet.stop)(fleet.nodes[0])
    fleet.sums.send_again(range(len(fleet.sums.sent)))
    fleet.settle()
    fleet.sums.send_again(range(len(fleet.sums.sent)))
    fleet.settle()
    fleet.check()

"""Async handlers: outputs and rows are those of one call after the other, whatever order the calls end in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.errors import HandlerError
from pipeline.ports import Step
from tests.support.runtime.async_sums import AsyncSums, Call


def slow_then_fast(sums: AsyncSums) -> None:
    """Two records of different keys, of which the second one ends first."""
    sums.send(Call("a", delay_s=2.0), Call("b"))


def test_outputs_have_the_order_of_their_records() -> None:
    """Readers of the output rely on the order of a partition, as with plain handlers."""
    sums = AsyncSums()
    sums.send(*[Call(key, delay_s=delay) for key, delay in zip("abcd", [2.0, 0.5, 1.0, 0.2], strict=True)])
    sums.driver.run()
    assert sums.handled == [0, 1, 2, 3]
    assert sums.most == 4
    sums.check()


def test_calls_of_one_key_run_one_after_the_other() -> None:
    """A call reads what the one before it wrote, so it cannot start earlier."""
    sums = AsyncSums()
    sums.send(*[Call("a", delay_s=0.5) for _ in range(5)], Call("b", delay_s=0.5))
    sums.driver.run()
    assert sums.most == 2
    sums.check()


def test_nothing_behind_an_unfinished_call_is_committed() -> None:
    """A position says that everything below it is done."""
    sums = AsyncSums()
    slow_then_fast(sums)
    sums.turn(10)
    assert sums.attempts == {0: 1, 1: 1}
    assert sums.handled == []
    assert sums.driver.positions()["numbers"] == 0
    sums.driver.run()
    assert sums.handled == [0, 1]


def test_a_crash_repeats_calls_that_had_ended() -> None:
    """Their effects outside Kafka happen again, with the same effect keys."""
    sums = AsyncSums()
    slow_then_fast(sums)
    sums.turn(10)
    sums.crash()
    sums.driver.run()
    assert sums.attempts == {0: 2, 1: 2}
    sums.check()


def test_two_inputs_of_a_partition_share_one_order() -> None:
    """A row that one topic's call wrote is in what the other topic's call read: neither is committed alone."""
    sums = AsyncSums()
    sums.send(Call("x", delay_s=2.0), Call("a"))  # `a` waits for `x`, which is before it
    sums.turn(3)
    sums.send(Call("a"), other=True)  # it reads the row that `a` has written and not committed
    sums.turn(3)
    assert sums.attempts == {0: 1, 1: 1, 2: 1}
    assert sums.handled == []
    sums.crash()
    sums.driver.run()
    sums.check()


def test_a_retry_keeps_its_key_and_everything_behind_it_waiting() -> None:
    """Its writes belong before theirs. Calls of other keys run meanwhile."""
    sums = AsyncSums(retries=2)
    sums.send(Call("a", failures=2), Call("a"), Call("b"))
    sums.turn(4)
    assert sums.attempts == {0: 1, 2: 1}
    assert sums.handled == []
    sums.driver.run()
    assert sums.attempts == {0: 3, 1: 1, 2: 1}
    assert sums.handled == [0, 1, 2]
    sums.check()


def test_a_failed_attempt_leaves_nothing() -> None:
    """It had written and sent before it raised."""
    sums = AsyncSums(retries=1)
    sums.send(Call("a", failures=1), Call("b", failures=9), Call("b"))
    sums.driver.run()
    assert sums.handled == [0, 2]
    sums.check()


def test_a_call_that_is_over_its_time_has_failed() -> None:
    """A service that never answers must not hold its partition forever."""
    sums = AsyncSums(timeout_s=3.0)
    sums.send(Call("a", hangs=True), Call("a"), Call("b"))
    sums.driver.run()
    assert sums.handled == [1, 2]
    (event,) = sums.driver.log_events("record_rejected")
    assert (event["error"], event["message"]) == ("TimeoutError", "the call did not end within 3 s")
    sums.check()


def test_a_call_that_swallows_its_cancellation_has_failed() -> None:
    """It has not done what it was to do, although it returned. The next call in its slot is not cancelled."""
    sums = AsyncSums(concurrency=1)
    sums.send(Call("a", swallows=True), Call("b", delay_s=1.0))
    sums.driver.run()
    assert sums.handled == [1]
    sums.check()


def test_a_record_that_stops_its_partition_stops_what_is_behind_it() -> None:
    """What is before it is committed, and calls that had ended behind it are made again after the fix."""
    sums = AsyncSums(on_error="stop")
    sums.send(Call("a"), Call("b", delay_s=1.0, failures=1), Call("c"))
    with pytest.raises(HandlerError, match=r"numbers\[0\] offset 1 cannot be processed.*unreachable"):
        sums.driver.run()
    assert sums.handled == [0]
    sums.crash()
    sums.driver.run()
    assert sums.attempts == {0: 1, 1: 2, 2: 2}
    assert sums.handled == [0, 1, 2]


def test_dead_letters_are_in_order_and_can_be_replayed() -> None:
    """A letter belongs to the commit with its record's position, as for plain handlers."""
    sums = AsyncSums(on_error="dead_letter", retries=1)
    sums.send(Call("a", failures=2), Call("b", failures=3, delay_s=0.2), Call("c"))
    sums.driver.run()
    assert sums.handled == [2]
    assert [event.key for event in sums.driver.dead_letters()] == [b"a", b"b"]
    assert sums.driver.replay_dead_letters() == 2
    sums.driver.run()
    assert sorted(sums.handled) == [0, 1, 2]
    assert len(sums.driver.dead_letters()) == 2


def test_a_reset_in_mid_call_drops_what_the_calls_write() -> None:
    """They belong to an older generation of the task: their records are handled again by the next one."""
    sums = AsyncSums(timeout_s=1000.0)
    sums.send(Call("a", delay_s=1.0), Call("b", hangs=True), Call("b"))
    sums.turn(3)
    sums.driver.reset("earliest")
    sums.calls[1] = Call("b", delay_s=0.5)  # it works in the second generation
    sums.driver.run()
    assert sums.attempts[0] == 2
    assert sorted(sums.handled) == [0, 1, 2]
    sums.check()


def test_a_task_holds_at_most_1024_calls_and_pauses_its_input() -> None:
    """A crash repeats them all; and each has a record in memory."""
    poll = WorkerSettings(worker_id="test", max_poll_records=500)
    sums = AsyncSums(settings=poll, concurrency=5_000, timeout_s=1000.0)
    sums.send(Call("first", delay_s=100.0), *[Call(f"k{n}") for n in range(3_000)])
    sums.turn(30)
    assert len(sums.attempts) == 1024
    assert sums.driver.task().backlog_records <= 1_500
    assert sums.driver.worker.runs[0].is_paused(0)
    sums.driver.clock.advance(100.0)
    sums.driver.run()
    assert not sums.driver.worker.runs[0].is_paused(0)
    sums.check()


def test_concurrency_is_counted_over_all_tasks_of_the_worker() -> None:
    """It protects the service, which does not know about partitions."""
    sums = AsyncSums(concurrency=3, partitions=4, tasks=4)
    sums.send(*[Call(key, delay_s=1.0) for key in "abcdefghijkl"])
    sums.driver.run()
    assert sums.most == 3
    sums.check()


def test_a_partition_that_retries_leaves_room_for_the_others() -> None:
    """With one task for each partition, it would not slow the others down."""
    sums = AsyncSums(partitions=2, tasks=1, retries=9, concurrency=5_000)
    sums.send(Call("x", failures=9), partition=0)
    sums.send(*[Call(f"k{n}") for n in range(2_000)], partition=0)
    sums.turn(4)
    sums.send(*[Call("y") for n in range(20)], partition=1)
    sums.turn(30)
    assert sums.driver.positions(partition=1)["numbers"] == 20


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(
    "step", [Step.AFTER_OUTPUTS, Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.BEFORE_RETIRE]
)
def test_a_crash_at_a_step_of_a_commit_leaves_all_exact(step: Step, deferred: bool) -> None:
    """Calls are in flight, finished, open and sealed at that moment."""
    sums = AsyncSums(deferred=deferred)
    for n in range(12):
        sums.send(Call("abc"[n % 3], delay_s=n % 4 / 4))
    sums.driver.crash_at(step, nth=2)
    sums.driver.run()
    assert sums.driver.crashed
    sums.crash()
    sums.driver.run()
    sums.check()


def test_a_stop_lets_started_calls_end() -> None:
    """An orderly handoff repeats no call."""
    sums = AsyncSums(concurrency=2)
    sums.send(Call("a", delay_s=1.0), Call("b"), Call("b", delay_s=0.3), Call("c"), Call("d"), Call("e"))
    sums.turn(2)
    started = dict(sums.attempts)
    sums.driver.stop()
    assert set(started) <= set(sums.handled)
    sums.driver.run()
    assert all(count == 1 for count in sums.attempts.values())
    sums.check()


def test_a_stop_cancels_calls_that_take_too_long() -> None:
    """The worker must have stopped before the supervisor loses patience. The next owner calls again."""
    sums = AsyncSums(timeout_s=1000.0)
    sums.send(Call("a"), Call("b", delay_s=500.0), Call("c"))
    sums.turn(3)
    sums.driver.stop()
    assert sums.handled == [0]
    sums.driver.run()
    assert sums.attempts == {0: 1, 1: 2, 2: 2}
    sums.check()


calls = st.builds(
    Call,
    key=st.sampled_from("abcd"),
    delay_s=st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0]),
    failures=st.sampled_from([0, 0, 0, 1, 9]),
    hangs=st.sampled_from([False] * 9 + [True]),
    swallows=st.sampled_from([False] * 9 + [True]),
)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(calls, min_size=1, max_size=6), st.booleans()),
        st.tuples(st.just("turn"), st.integers(1, 8), st.just(False)),
        st.tuples(st.just("crash"), st.just(0), st.booleans()),
        st.tuples(st.just("stop"), st.just(0), st.just(False)),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    history=histories,
    shape=st.sampled_from([(1, 1), (3, 1), (3, 2), (3, 3)]),
    most=st.sampled_from([1, 3, 50_000]),
    concurrency=st.sampled_from([1, 2, 8]),
    deferred=st.booleans(),
)
def test_random_histories_are_folds(
    history: list[tuple[str, Any, bool]],
    shape: tuple[int, int],
    most: int,
    concurrency: int,
    deferred: bool,
) -> None:
    """Random ends of calls, failures, time-outs, crashes and stops, with every number of tasks."""
    partitions, tasks = shape
    chosen = WorkerSettings(worker_id="test", max_records_per_commit=most)
    sums = AsyncSums(
        retries=1,
        partitions=partitions,
        tasks=tasks,
        settings=chosen,
        concurrency=concurrency,
        deferred=deferred,
        timeout_s=2.0,
    )
    for what, how, flag in history:
        if what == "send":
            sums.send(*how, other=flag)
        elif what == "turn":
            sums.turn(how)
        elif what == "crash":
            sums.crash(empty_disk=flag)
        else:
            sums.driver.stop()
    sums.driver.run()
    sums.check()
    sums.driver.stop()

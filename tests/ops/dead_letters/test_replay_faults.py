"""Replays whose process, Kafka or worker fails anywhere: each letter is handled once all the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ports import Step
from pipeline.testing.faults import Faults
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer
from tests.support.ops.slow import SlowClock, count_inits

ID = GROUP.replay_transactional_id
WORKER_STEPS = [
    Step.BEFORE_BEGIN,
    Step.AFTER_OUTPUTS,
    Step.AFTER_FLUSH,
    Step.DURING_COMMIT,
    Step.AFTER_COMMIT,
    Step.AFTER_APPLY,
]


class Crash(BaseException):
    """The command's process is gone."""


def replay_until_done(orders: Orders) -> None:
    """Run the command again, as a person does, until it ends well."""
    for _ in range(30):
        try:
            replayer(orders).run(Choice())
        except (Crash, UnreachableError, AbortableError, RetriableError, UnknownOutcomeError):
            continue
        return
    raise AssertionError("the replay did not end")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "begin", "append", "send", "flush", "commit"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_at_any_call_loses_and_doubles_nothing(
    call: str, after: bool, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a SIGKILL at any step, the next run continues from the committed marks."""
    monkeypatch.setattr("pipeline.ops.dead_letters.replaying.BATCH_LETTERS", 2)
    orders = failed()
    for _ in range((nth - 1) if call in {"begin", "flush", "commit"} else 0):
        orders.driver.broker.fail_next(call, AbortableError("a hiccup before"), where=ID)
    orders.driver.broker.fail_next(call, Crash(), after=after, where=ID)
    replay_until_done(orders)
    orders.driver.run()
    orders.check()
    assert orders.driver.broker.faults.left() == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["begin", "append", "send", "flush", "commit"])
@pytest.mark.parametrize("error", [AbortableError, UnknownOutcomeError, RetriableError])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_error_at_any_call_is_settled_by_the_mark(
    call: str, after: bool, error: type[PipelineError], nth: int
) -> None:
    """Even a commit that happened and was reported as failed must not be repeated."""
    orders = failed()
    skip = nth - 1 if call in {"begin", "append", "flush"} else 0  # the first of these is a barrier's
    orders.driver.broker.fail_next(call, error("ordered"), after=after, where=ID, skip=skip)
    replayer(orders).run(Choice())
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_faults_crashes_and_restarts_ends_exact(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and the worker are killed and started again in any order."""
    monkeypatch.setattr("pipeline.ops.dead_letters.replaying.BATCH_LETTERS", 1 + seed % 3)
    orders, dice = failed(seed=seed, deferred=bool(seed % 2)), random.Random(seed)
    errors: list[Callable[[], BaseException]] = [
        Crash,
        lambda: AbortableError("ordered"),
        lambda: UnknownOutcomeError("ordered"),
    ]
    for _ in range(dice.randrange(1, 8)):
        call = dice.choice(["init", "begin", "append", "send", "flush", "commit"])
        error = dice.choice(errors[:1] if call == "init" else errors)()
        orders.driver.broker.fail_next(call, error, after=bool(dice.randrange(2)), where=ID)
    for _ in range(dice.randrange(3)):
        orders.driver.crash_at(dice.choice(WORKER_STEPS), nth=dice.randrange(1, 4))
    for _ in range(30):
        try:
            replayer(orders).run(Choice(), most=dice.randrange(1, 4))
        except (Crash, AbortableError, UnknownOutcomeError):
            continue
        if dice.randrange(2):
            orders.driver.run()
        if orders.driver.crashed:
            orders.driver.restart(empty_disk=bool(dice.randrange(2)))
    orders.driver.broker.faults = Faults()
    replay_until_done(orders)
    while True:
        orders.driver.run()
        if not orders.driver.crashed:
            break
        orders.driver.restart(empty_disk=True)
    orders.check()


@pytest.mark.parametrize("step", WORKER_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_worker_that_crashes_at_any_step_handles_each_replay_once(step: Step, empty_disk: bool) -> None:
    """The position among the replays is in the entry with their results."""
    orders = failed()
    orders.driver.replay_dead_letters()
    orders.driver.crash_at(step)
    orders.driver.run()
    assert orders.driver.crashed
    orders.driver.restart(empty_disk=empty_disk)
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("step", [Step.AFTER_FLUSH, Step.AFTER_COMMIT])
def test_a_crash_around_a_replay_that_fails_again_leaves_one_letter(step: Step) -> None:
    """Two letters of one record would be replayed twice."""
    orders = failed()
    orders.bad = {8}
    orders.driver.replay_dead_letters()
    orders.driver.crash_at(step)
    orders.driver.run()
    orders.driver.restart()
    orders.driver.run()
    orders.check(without=frozenset({8}))
    assert len(orders.driver.dead_letters()) == len(BAD) + 1


def test_a_newer_replay_fences_the_older_one_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people run the command: one must do it, the other must say why it stopped."""
    monkeypatch.setattr("pipeline.ops.dead_letters.replaying.BATCH_LETTERS", 1)
    orders = failed()

    def take_over(done: int) -> None:
        if done == 2:
            replayer(orders).run(Choice())

    with pytest.raises(FencedError, match="a newer replay of group main was started"):
        replayer(orders).run(Choice(), progress=take_over)
    orders.driver.run()
    orders.check()


def test_a_slow_commit_is_followed_by_a_renewal_and_a_lost_one_is_noticed() -> None:
    """The client may have sent it twice; and a mark that was confirmed and is gone is a loss in Kafka."""
    orders = failed()
    orders.driver.clock = SlowClock()
    broker, marks = orders.driver.broker, TopicPartition("pipeline.replays.orders", 0)
    renewed = count_inits(broker, lambda nth: broker.lose_tail(marks, 2) if nth == 13 else None)
    assert replayer(orders).run(Choice(), most=1).letters == 1
    assert renewed == [ID] * 8  # twice a fence, with three barriers whose aborts are slow

    with pytest.raises(FatalTaskError, match="its records are missing"):
        replayer(orders).run(Choice())


def test_a_transaction_that_keeps_failing_is_given_up_and_the_next_run_continues() -> None:
    """It must end in an error that says from which letter on, not in a loop."""
    orders = failed()
    for _ in range(5):
        orders.driver.broker.fail_next("send", AbortableError("disk full"), where=ID)
    with pytest.raises(AbortableError, match=r"4 dead letters from \d:\d+ on.*5 attempts.*disk full"):
        replayer(orders).run(Choice())
    replay_until_done(orders)
    orders.driver.run()
    orders.check()

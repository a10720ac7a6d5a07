"""Dead letters that are replayed in memory: each once, whatever fails, and as the records that they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import App, Batch, Context, Dedup, Event
from pipeline.client.letters import Choice, letter_id
from pipeline.client.marks import decode_mark, read_marks
from pipeline.client.migration import Migration, survey
from pipeline.client.replaying import Replayed, Replayer
from pipeline.config import WorkerSettings
from pipeline.core.letters import Replay, encode_replay, read_letter
from pipeline.core.names import TopicPartition
from pipeline.errors import (
    AbortableError,
    ConfigError,
    CorruptStateError,
    FatalTaskError,
    FencedError,
    HandlerError,
    InputError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime.reset import plan_reset, start_at
from pipeline.runtime.status import read_status
from pipeline.testing import ManualClock, MemoryCluster, MemoryJournalReader, TestDriver
from pipeline.testing.faults import Faults
from tests.client.orders import GROUP, Orders

ID = GROUP.replay_transactional_id
BAD = frozenset({3, 4, 8, 11})
ALL = range(1, 13)
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


def failed(**options: Any) -> Orders:
    """Amounts that have been handled, but for the bad ones, which are dead letters; the handler is mended now."""
    orders = Orders(**options)
    orders.bad = set(BAD)
    orders.send(*ALL)
    orders.driver.run()
    orders.check(without=BAD)
    orders.bad = set()
    orders.seen.clear()
    return orders


def replayer(orders: Orders, *, again: bool = False) -> Replayer:
    return Replayer(orders.app, orders.driver._world(), 500, again=again)


def replay_until_done(orders: Orders) -> None:
    """Run the command again, as a person does, until it ends well."""
    for _ in range(30):
        try:
            replayer(orders).run(Choice())
        except (Crash, UnreachableError, AbortableError, RetriableError, UnknownOutcomeError):
            continue
        return
    raise AssertionError("the replay did not end")


def numbers(orders: Orders) -> list[int]:
    return sorted(event.value for event in orders.seen)


@pytest.mark.parametrize("batch", [False, True])
def test_every_record_counts_once_after_the_handler_is_mended(batch: bool) -> None:
    """The whole point: mend, replay, and the results are those of a handler that was never wrong."""
    orders = failed(batch=batch)
    assert orders.driver.replay_dead_letters() == len(BAD)
    orders.driver.run()
    orders.check()
    assert numbers(orders) == sorted(BAD)
    assert len(orders.driver.dead_letters()) == len(BAD)  # they stay where they are


def test_a_replayed_record_is_shown_as_the_record_that_it_was() -> None:
    """Effects outside Kafka find their key again, and nobody can tell it from the first time."""
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
    """The story goes on: where the record is, and that it was the second replay that failed."""
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
    """`skip` would lose what somebody has just asked for, and `stop` would end the task for an old record."""
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
    """One is replayed first to see whether the handler is mended; then those of one cause."""
    orders = failed()
    found = list(replayer(orders).plan(Choice(), Replayed()))
    assert sorted(int(letter.value or b"") for letter in found) == sorted(BAD)
    assert [
        letter.value for letter in list(replayer(orders).plan(Choice(error="11 is not"), Replayed()))
    ] == [b"11"]
    first = found[0]
    assert list(replayer(orders).plan(Choice(ids=[first.id]), Replayed())) == [first]
    assert letter_id(first.name) == first.id
    partition = first.letter.origin.partition
    mine = {letter.id for letter in found if letter.letter.origin.partition == partition}
    assert {
        letter.id for letter in list(replayer(orders).plan(Choice(partition=partition), Replayed()))
    } == mine
    assert replayer(orders).run(Choice(), most=3).letters == 3
    rest = replayer(orders).run(Choice())
    assert (rest.letters, rest.before) == (1, 3)
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("text", ["17", "0:", ":1", "a:b", "0:-1", "0:1:2"])
def test_what_names_no_letter_is_refused(text: str) -> None:
    """A typing error must not choose all of them."""
    with pytest.raises(InputError, match="is no dead letter"):
        letter_id(text)


# Whatever fails


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["init", "begin", "append", "send", "flush", "commit"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_at_any_call_loses_and_doubles_nothing(
    call: str, after: bool, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL strikes anywhere; the next run goes on from the marks that are committed."""
    monkeypatch.setattr("pipeline.client.replaying.BATCH_LETTERS", 2)
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
def test_an_error_at_any_call_is_settled_by_the_mark(
    call: str, after: bool, error: type[PipelineError]
) -> None:
    """Even a commit that happened and was reported as failed must not be repeated."""
    orders = failed()
    orders.driver.broker.fail_next(call, error("ordered"), after=after, where=ID)
    replayer(orders).run(Choice())
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_faults_crashes_and_restarts_ends_exact(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and the worker are killed and started again in any order."""
    monkeypatch.setattr("pipeline.client.replaying.BATCH_LETTERS", 1 + seed % 3)
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
    monkeypatch.setattr("pipeline.client.replaying.BATCH_LETTERS", 1)
    orders = failed()

    def take_over(done: int) -> None:
        if done == 2:
            replayer(orders).run(Choice())

    with pytest.raises(FencedError, match="another replay of group main has taken over"):
        replayer(orders).run(Choice(), progress=take_over)
    orders.driver.run()
    orders.check()


def test_a_slow_commit_is_followed_by_a_renewal_and_a_lost_one_is_noticed() -> None:
    """The client may have sent it twice; and a mark that was confirmed and is gone is a loss in Kafka."""
    orders = failed()

    class Slow(ManualClock):
        def monotonic_s(self) -> float:
            self.advance(0.4)
            return super().monotonic_s()

    orders.driver.clock = Slow()
    renewed: list[str] = []
    init = orders.driver.broker.init

    def counted(transactional_id: str) -> int:
        renewed.append(transactional_id)
        return init(transactional_id)

    orders.driver.broker.init = counted  # type: ignore[method-assign]
    assert replayer(orders).run(Choice(), most=1).letters == 1
    assert renewed == [ID, ID]

    def losing(transactional_id: str) -> int:
        renewed.append(transactional_id)
        if len(renewed) == 4:
            orders.driver.broker.lose_tail(TopicPartition("pipeline.replays.orders", 0), 2)
        return init(transactional_id)

    orders.driver.broker.init = losing  # type: ignore[method-assign]
    with pytest.raises(FatalTaskError, match="has lost it"):
        replayer(orders).run(Choice())


def test_a_transaction_that_keeps_failing_is_given_up_and_the_next_run_goes_on() -> None:
    """It must end in an error that says from which letter on, not in a loop."""
    orders = failed()
    for _ in range(5):
        orders.driver.broker.fail_next("flush", AbortableError("disk full"), where=ID)
    with pytest.raises(AbortableError, match=r"4 dead letters from \d:\d+ on.*5 attempts.*disk full"):
        replayer(orders).run(Choice())
    replay_until_done(orders)
    orders.driver.run()
    orders.check()


# What surrounds it


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
    (run,) = orders.driver._running()._runs
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
    """Whoever changes `dead_letter` to `stop` has not said that the replays are to be forgotten."""
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


def test_a_letter_whose_topic_is_no_longer_an_input_is_refused_with_what_to_do() -> None:
    """Sent all the same, it would come back as a letter at once."""
    orders = failed()
    app = App("orders")
    app.handler(app.topic("other", key=str, value=int))(orders._add)
    replayed = Replayer(app, orders.driver._world(), 500).run(Choice())
    assert replayed.letters == 0
    assert [refused.reason for refused in replayed.refused] == [
        "topic amounts is no longer an input of group main: bring its handler back"
    ] * len(BAD)


def test_a_letter_of_another_group_is_refused_and_the_others_are_replayed() -> None:
    """Somebody has copied letters together; each belongs to the group that gave its record up."""
    orders = failed()
    letter = orders.driver.broker.records(GROUP.dead_letter_topic)[0]
    headers = [
        (name, b"elsewhere" if name == "dead-letter-app" else value) for name, value in letter.headers() or ()
    ]
    orders.driver.broker.produce(Output(GROUP.dead_letter_topic, None, b"1", 0, headers))
    with pytest.raises(InputError, match="cannot be replayed: it is a letter of app elsewhere"):
        orders.driver.replay_dead_letters()
    orders.driver.run()
    orders.check()


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


def test_what_is_no_replay_becomes_a_letter_and_the_task_goes_on() -> None:
    """Somebody wrote to the topic in spite of its name: the task must not stop for ever, and nothing is thrown away."""
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
    assert "no replay that this release can read" in read[0].error
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
    world = orders.driver._world()
    planned = plan_reset(orders.app, orders.app.groups, None, start_at(["earliest"]), world)
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


def test_a_topic_of_replays_with_other_partitions_is_refused() -> None:
    """Somebody has created it by hand: most tasks would have no partition to read, or nobody would read the last."""
    orders = Orders()
    orders.driver.broker.create(TopicSpec(GROUP.replays_topic, 7))
    with pytest.raises(ConfigError, match="has 7 partitions, and group orders/main has 2 tasks"):
        orders.driver.run()


def test_an_input_that_has_got_partitions_is_still_what_is_complained_about() -> None:
    """The topic of replays no longer fits either, but it is not what somebody has changed."""
    orders = failed()
    orders.driver.stop()
    orders.driver.broker.add_partitions("amounts", 2)
    orders.driver.restart()
    with pytest.raises(
        ConfigError, match=r"its journal orders\.main\.journal has 2 partitions, its input amounts"
    ):
        orders.driver.run()


def test_a_letter_that_is_named_is_found_without_reading_the_others() -> None:
    """A topic of a million letters must answer for one at once."""
    orders = failed(partitions=1)
    letters = list(replayer(orders).plan(Choice(), Replayed()))
    read: list[int] = []
    real = orders.driver.broker.read

    def counted(partition: TopicPartition, start: int, **options: Any) -> Any:
        found = real(partition, start, **options)
        read.extend(record.offset() for record in found if partition.topic == GROUP.dead_letter_topic)
        return found

    orders.driver.broker.read = counted  # type: ignore[method-assign]
    ids = [letters[1].id, letters[2].id, (9, 1), (0, 10_000)]
    assert list(replayer(orders).plan(Choice(ids=ids), Replayed())) == letters[1:3]
    assert letters[0].offset not in read


def test_status_counts_what_waits_to_be_replayed_as_lag() -> None:
    """Whoever has replayed wants to know when it is done."""
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
    """One foreign record would come back as a dead letter of nobody."""
    with pytest.raises(ConfigError, match="only `pipeline deadletters replay` may write"):
        Orders().app.topic("orders.main.replays", key=str, value=int)


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
    with pytest.raises(InputError, match=r"topic orders\.main\.replays 44: raise its max\.message\.bytes"):
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

"""The number of open records in a status: exact after any crash, take-over, replay, discard and purge."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pipeline.app import declared_app
from pipeline.core.dead_letter_count import OpenLetters
from pipeline.core.names import TopicPartition, letter_counts_topic
from pipeline.errors import AbortableError, UnknownOutcomeError
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.open_count import OpenCount
from pipeline.ops.dead_letters.purging import purge
from pipeline.ops.dead_letters.records import State, failed_records
from pipeline.ops.dead_letters.replaying import Discarder, ReplayReport
from pipeline.ports import JournalReader, Step
from pipeline.runtime.restore import seed
from pipeline.runtime.status import AppStatus, read_status
from pipeline.testing.faults import Faults
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.ops.dead_letters.orders import GROUP, Orders
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer

ID = GROUP.replay_transactional_id


class Crash(BaseException):
    """The command's process is gone."""


def status(orders: Orders) -> AppStatus:
    broker, now_ms = orders.driver.broker, orders.driver.clock.wall_ms()
    return read_status("orders", MemoryCluster(broker), MemoryJournalReader(broker), now_ms)


def counted(orders: Orders) -> OpenLetters:
    """What the status says, from counts."""
    (found,) = status(orders).letters
    assert found.group == GROUP
    return found.letters


def really_open(orders: Orders) -> int:
    """What the letters and marks say, once a transaction that a crash left open was aborted."""
    environment = orders.driver.environment()
    orders.driver.broker.fence(ID)
    topic = orders.driver.broker.describe(GROUP.dead_letter_topic)
    assert topic is not None
    marks = replayer(orders)
    marks._recall()
    records = failed_records(topic, GROUP, Choice(), environment)
    return sum(record.state(marks._marks) is State.OPEN for record in records)


def test_a_status_shows_records_that_failed_as_a_problem_until_they_are_handled() -> None:
    """All tasks live, no lag, and a tenth of the records in dead letters: that is not well."""
    orders = Orders()
    orders.driver.run()
    assert (counted(orders).open, status(orders).problems) == (0, [])
    orders.bad = set(BAD)
    orders.send(*range(1, 13))
    orders.driver.run()
    found = counted(orders)
    assert (found.open, found.whole) == (len(BAD), True)
    assert 0 <= orders.driver.clock.wall_ms() - found.last_ms < 1_000
    assert found.recent == pytest.approx(len(BAD), rel=0.05)
    (problem,) = status(orders).problems
    assert problem.text == "group orders/main has 4 open dead letters: replay or discard them"
    assert "deadletters list MODULE:APP --group main --open" in problem.hint
    orders.bad = {8}
    orders.driver.replay_dead_letters()
    assert counted(orders).open == 0
    orders.driver.run()
    assert counted(orders).open == 1
    Discarder(declared_app(orders.app).main, orders.driver.environment(), 500).run(Choice())
    assert (counted(orders).open, status(orders).problems) == (0, [])


def test_a_status_reads_no_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked every two seconds, and a topic of a million letters takes minutes to read."""
    orders = failed()
    read: list[str] = []
    real = MemoryJournalReader.read

    def noted(self: MemoryJournalReader, journal: TopicPartition, start: int, end: int) -> object:
        read.append(journal.topic)
        return real(self, journal, start, end)

    monkeypatch.setattr(MemoryJournalReader, "read", noted)
    assert counted(orders).open == len(BAD)
    assert read
    assert GROUP.dead_letter_topic not in read
    assert "pipeline.replays.orders" not in read


@pytest.mark.parametrize("step", [Step.AFTER_FLUSH, Step.DURING_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_of_the_worker_counts_each_letter_once(step: Step, empty_disk: bool) -> None:
    """The count is in the entry of the commit that writes the letters."""
    orders = Orders()
    orders.bad = set(BAD)
    orders.send(*range(1, 13))
    orders.driver.crash_at(step, nth=2)
    orders.driver.run()
    assert orders.driver.crashed
    orders.driver.restart(empty_disk=empty_disk)
    orders.driver.run()
    assert counted(orders).open == really_open(orders) == len(BAD)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [Crash, AbortableError, UnknownOutcomeError])
def test_a_replay_in_doubt_is_counted_as_it_was_committed(after: bool, error: type[BaseException]) -> None:
    """The tally is in the transaction of the marks."""
    orders = failed()
    orders.driver.broker.fail_next("commit", error("ordered"), after=after, where=ID)
    try:
        replayer(orders).run(Choice(), most=2)
    except Crash:
        assert error is Crash
    assert counted(orders).open == really_open(orders)


def test_letters_that_are_written_while_a_command_counts_are_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command can read letters for minutes while workers write new ones."""
    monkeypatch.setattr("pipeline.ops.dead_letters.replaying.BATCH_LETTERS", 1)
    orders = failed()
    orders.bad = {20, 21, 22, 23}

    def fail_more(done: int) -> None:
        if done == 1:
            orders.send(20, 21, 22, 23)
            orders.driver.run()

    command = replayer(orders)
    begin = command._count.begin

    def begin_and_fail(journals: Callable[[], JournalReader]) -> None:
        begin(journals)
        orders.send(20)
        orders.driver.run()

    monkeypatch.setattr(command._count, "begin", begin_and_fail)
    orders.sent.clear()
    command.run(Choice(), progress=fail_more)
    assert counted(orders).open == really_open(orders) > 0


def test_letters_of_earlier_releases_are_counted_by_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the status says that it does not know them."""
    with monkeypatch.context() as patched:
        patched.setattr(seed, "NO_LETTERS", None)
        patched.setattr("pipeline.runtime.commit.journal_writer.grown", lambda *_: None)
        orders = failed()
        orders.driver.stop()
    orders.driver.restart()
    orders.bad = {20}
    orders.send(20)
    orders.driver.run()
    assert counted(orders)[:2] == (1, False)
    assert (
        Discarder(declared_app(orders.app).main, orders.driver.environment(), 500)
        .run(Choice(error="no such"))
        .letters
        == 0
    )
    assert counted(orders)[:2] == (len(BAD) + 1, True)
    replayer(orders).run(Choice(error="8 is"))
    assert counted(orders)[:2] == (len(BAD), True)


def test_a_named_letter_is_subtracted_without_counting_all() -> None:
    """Once the letters were counted, a command for one of them need not read the others."""
    orders = failed()
    replayer(orders).run(Choice(error="8 is"))
    first = next(iter(replayer(orders).plan(Choice(), ReplayReport())))
    replayer(orders).run(Choice(ids=[first.id]))
    assert counted(orders).open == really_open(orders) == len(BAD) - 2
    replayer(orders, again=True).run(Choice(ids=[first.id]))
    assert counted(orders).open == len(BAD) - 2


def test_a_dead_letter_topic_that_was_created_again_is_counted_from_none() -> None:
    """The old letters no longer exist, and cannot be replayed."""
    orders = failed()
    replayer(orders).run(Choice(error="8 is"))
    orders.driver.run()
    orders.driver.broker.delete(GROUP.dead_letter_topic)
    assert status(orders).letters == []
    orders.driver.restart()
    orders.driver.run()
    assert counted(orders).open == 0
    orders.bad = {20}
    orders.send(20)
    orders.driver.run()
    assert counted(orders)[:2] == (1, True)


def test_letters_of_all_partitions_of_a_task_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is that of a task. A letter of its second partition must not look like one of another task.

    The letters that a worker writes after the command has read the counts are counted by the tasks.
    """
    orders = Orders(partitions=6, tasks=2)
    orders.bad = set(range(100))
    orders.send(*range(12), customers=12)
    orders.driver.run()
    real = OpenCount.begin

    def late(count: OpenCount, journals: Callable[[], JournalReader]) -> None:
        orders.send(*range(20, 32), customers=12)
        orders.driver.run()
        real(count, journals)

    monkeypatch.setattr(OpenCount, "begin", late)
    replayer(orders).run(Choice(error="3 is"))
    assert counted(orders).open == really_open(orders) == 24 - 2


def test_a_count_that_is_lost_is_made_anew_by_the_next_command() -> None:
    """If its topic was deleted, only the number in the status is wrong."""
    orders = failed()
    replayer(orders).run(Choice(error="8 is"))
    orders.driver.broker.delete(letter_counts_topic("orders"))
    assert counted(orders).open == len(BAD)
    replayer(orders).run(Choice(error="3 is"))
    assert counted(orders).open == really_open(orders) == len(BAD) - 2


@pytest.mark.parametrize("seed", range(25))
def test_any_history_of_failures_commands_and_crashes_is_counted(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens, a status says what the letters and marks say."""
    monkeypatch.setattr("pipeline.ops.dead_letters.replaying.BATCH_LETTERS", 1 + seed % 3)
    dice = random.Random(seed)
    orders = Orders(seed=seed, deferred=bool(seed % 2), partitions=5, tasks=(None, 5, 2, 1)[seed % 4])
    errors = [Crash, AbortableError, UnknownOutcomeError]
    amount = 0
    orders.driver.run()
    for _ in range(10):
        environment = orders.driver.environment()
        if dice.randrange(2):
            orders.bad = {number for number in range(200) if dice.randrange(3) == 0}
            orders.send(*range(amount, amount + 6))
            amount += 6
        if dice.randrange(3) == 0:
            orders.driver.crash_at(dice.choice([Step.AFTER_FLUSH, Step.AFTER_COMMIT, Step.AFTER_APPLY]))
        if dice.randrange(3) == 0:
            call = dice.choice(["begin", "send", "flush", "commit"])
            orders.driver.broker.fail_next(
                call, dice.choice(errors)("x"), after=bool(dice.randrange(2)), where=ID
            )
        choice, most = Choice(error=str(dice.randrange(10))), dice.randrange(1, 5)
        try:
            match dice.randrange(5):
                case 0:
                    replayer(orders, again=bool(dice.randrange(2))).run(choice, most)
                case 1:
                    replayer(orders).run(Choice())
                case 2:
                    Discarder(declared_app(orders.app).main, environment, 500).run(choice, most)
                case 3:
                    purge(GROUP, environment, 500)
        except (Crash, AbortableError, UnknownOutcomeError):
            orders.driver.broker.faults = Faults()
        orders.driver.run()
        while orders.driver.crashed:
            orders.driver.restart(empty_disk=bool(dice.randrange(2)))
            orders.driver.run()
    orders.driver.broker.faults = Faults()
    assert counted(orders).open == really_open(orders)

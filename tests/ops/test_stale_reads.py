"""Commands while a stale leader still answers: loads, replays, copies and retirements are exact all the same."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, StaleReadError, UnknownOutcomeError, UnreachableError
from pipeline.ops.apps import groups_of
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.purging import purge
from pipeline.ops.migration.migration import _read_progress
from pipeline.runtime.commit.admin_entry import last_of
from pipeline.runtime.restore.retirement import retire, revive
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.ops.dead_letters.test_open_count import counted, really_open
from tests.ops.migration.test_copying import KEYS
from tests.ops.migration.test_copying import Case as CopyCase
from tests.runtime.restore.test_stale_reads import Nth
from tests.support.ops.dead_letters.orders import GROUP
from tests.support.ops.dead_letters.replay_case import BAD, failed, replayer
from tests.support.ops.loading.load_case import ID, ROWS, Case, Crash, csv_file
from tests.support.runtime.sums import Sums

CLIENTS = range(8)


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_finished_load_is_not_loaded_again(nth: int) -> None:
    """An old position says that the second half is still to do."""
    case = Case()
    case.broker.fail_next("send", Crash(), where=ID, skip=4)
    with pytest.raises(Crash):
        case.load()
    assert len(case.positions()) == 2
    stale_leader = case.broker.add_stale_leader(lambda: False)
    case.load()
    stale_leader.answers = Nth(nth)
    assert case.load().records == ROWS
    case.check()


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("nth", CLIENTS)
def test_a_doubtful_transaction_of_a_load_is_not_repeated(nth: int, happened: bool) -> None:
    """The stale leader does not know the receipt of a transaction that was committed."""
    case = Case()
    stale_leader = case.broker.add_stale_leader(lambda: False)
    case.load(csv_file(20))
    case.broker.fail_next("commit", UnknownOutcomeError("no answer"), after=happened, where=ID)
    stale_leader.answers = Nth(nth)
    case.load()
    case.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_letter_that_was_replayed_is_not_replayed_again(nth: int) -> None:
    """The stale leader does not know its mark."""
    orders = failed()
    stale_leader = orders.driver.broker.add_stale_leader(lambda: False)
    assert replayer(orders).run(Choice()).letters == len(BAD)
    stale_leader.answers = Nth(nth)
    with suppress(UnreachableError):  # the stale leader does not know a topic that was created since
        replayer(orders).run(Choice())
    orders.driver.broker.heal()
    orders.driver.run()
    orders.check()


@pytest.mark.parametrize("nth", range(20))
def test_a_copy_continues_behind_what_is_copied(nth: int) -> None:
    """By an old position it would copy records a second time; by an old end it would leave some behind."""
    case = CopyCase()
    case.send(*KEYS)
    case.copy()
    stale_leader = case.broker.add_stale_leader(lambda: False)
    case.send(*KEYS)
    case.copy()
    case.send(*KEYS)
    stale_leader.answers = Nth(nth)
    case.copy()
    case.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_task_that_was_revived_is_retired_once_more(nth: int) -> None:
    """The stale leader still shows the old mark, which says that there is nothing to do."""
    sums = Sums.begun()
    driver, tasks = sums.driver, [sums.task]
    driver.stop()
    retire(tasks, "next", "test", driver.environment(), driver.settings)
    stale_leader = driver.broker.add_stale_leader(lambda: False)
    revive(tasks, "test", driver.environment(), driver.settings)
    stale_leader.answers = Nth(nth)
    assert list(retire(tasks, "next", "test", driver.environment(), driver.settings)) == tasks
    driver.broker.heal()
    assert last_of(TaskId("sums", "main", 0), driver.environment().journals()).entry.kind is EntryKind.RETIRE
    with pytest.raises(ConfigError, match="was retired"):
        driver.run()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_revived_app_starts_whatever_a_stale_leader_says(nth: int) -> None:
    """Its old answer is that the app was retired."""
    sums = Sums.begun()
    driver, tasks = sums.driver, [sums.task]
    driver.stop()
    retire(tasks, "next", "test", driver.environment(), driver.settings)
    stale_leader = driver.broker.add_stale_leader(lambda: False)
    revive(tasks, "test", driver.environment(), driver.settings)
    stale_leader.answers = Nth(nth)
    sums.send(2)
    driver.run()
    driver.broker.heal()
    driver.run()
    sums.check()


@pytest.mark.parametrize("nth", [*range(5), 6])
def test_a_purge_by_old_letters_deletes_no_open_letter(nth: int) -> None:
    """Ends by one broker and letters by another: what the second one does not know would be deleted unseen."""
    orders = failed(partitions=1)
    orders.driver.replay_dead_letters()
    orders.driver.run()
    stale_leader = orders.driver.broker.add_stale_leader(lambda: False)
    orders.bad = {20, 21}
    orders.send(20, 21)
    orders.driver.run()
    stale_leader.answers = Nth(nth)
    with suppress(UnreachableError):
        purge(GROUP, orders.driver.environment(), 500)
    assert len(orders.driver.dead_letters()) == 2


@pytest.mark.parametrize("nth", range(7))
def test_a_replay_by_old_letters_replays_the_newest_one(nth: int) -> None:
    """A reset made another letter of the same record, which the stale leader does not know."""
    orders = failed(partitions=1)
    stale_leader = orders.driver.broker.add_stale_leader(lambda: False)
    orders.bad = set(BAD)
    orders.driver.reset("earliest")
    orders.driver.run()
    orders.bad = set()
    stale_leader.answers = Nth(nth)
    letters = 0
    with suppress(UnreachableError):
        letters = replayer(orders).run(Choice()).letters
    orders.driver.broker.heal()
    assert letters + replayer(orders).run(Choice()).letters == len(BAD)


@pytest.mark.parametrize("nth", range(9))
def test_a_count_by_old_letters_hides_no_open_record(nth: int) -> None:
    """Counted up to an entry whose letter was not read, a record would be open and not be shown."""
    orders = failed(partitions=1)
    orders.driver.replay_dead_letters(error="3 is")
    orders.driver.run()
    stale_leader = orders.driver.broker.add_stale_leader(lambda: False)
    orders.bad = {20, 21}
    orders.send(20, 21)
    orders.driver.run()
    orders.bad = set()
    stale_leader.answers = Nth(nth)
    with suppress(UnreachableError):
        replayer(orders).run(Choice(error="4 is"))
    orders.driver.broker.heal()
    assert counted(orders).open == really_open(orders)


def test_a_reset_is_not_taken_for_the_end_of_a_migration() -> None:
    """The entry before it says that the task is at the end of its inputs."""
    sums = Sums.begun()
    sums.driver.stop()
    stale_leader = sums.driver.broker.add_stale_leader(lambda: False)
    sums.driver.reset("earliest")
    stale_leader.answers = lambda: True
    stale = MemoryJournalReader(sums.driver.broker)
    stale_leader.answers = lambda: False
    groups = groups_of("sums", MemoryCluster(sums.driver.broker))
    with pytest.raises(StaleReadError):
        _read_progress(groups, stale)


def test_a_group_that_one_broker_does_not_know_is_not_left_out() -> None:
    """A retirement or a cutover without it would be half of one."""
    sums = Sums()
    stale_leader = sums.driver.broker.add_stale_leader(lambda: False)
    sums.driver.run()
    stale_leader.answers = lambda: True
    assert len(groups_of("sums", MemoryCluster(sums.driver.broker))) == 1

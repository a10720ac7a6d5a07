"""Commands while a deposed broker still answers: loads, replays, copies and retirements are exact all the same."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pipeline.client.deadletters.letters import Choice
from pipeline.core.journal import Kind
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, UnknownOutcomeError, UnreachableError
from pipeline.runtime.appending import last_of
from pipeline.runtime.retirement import retire, revive
from tests.client.deadletters.replay_case import BAD, failed, replayer
from tests.client.loading.load_case import ID, ROWS, Case, Crash, csv_file
from tests.client.migrating.test_copying import KEYS
from tests.client.migrating.test_copying import Case as CopyCase
from tests.runtime.sums import Sums
from tests.runtime.test_stale_reads import Nth

CLIENTS = range(8)


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_finished_load_is_not_loaded_again(nth: int) -> None:
    """An old position says that the second half is still to do."""
    case = Case()
    case.broker.fail_next("send", Crash(), where=ID, skip=4)
    with pytest.raises(Crash):
        case.load()
    assert len(case.positions()) == 2
    deposed = case.broker.depose(lambda: False)
    case.load()
    deposed.asked_by = Nth(nth)
    assert case.load().records == ROWS
    case.check()


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("nth", CLIENTS)
def test_a_doubtful_transaction_of_a_load_is_not_repeated(nth: int, happened: bool) -> None:
    """The deposed broker does not know the receipt of a transaction that was committed."""
    case = Case()
    deposed = case.broker.depose(lambda: False)
    case.load(csv_file(20))
    case.broker.fail_next("commit", UnknownOutcomeError("no answer"), after=happened, where=ID)
    deposed.asked_by = Nth(nth)
    case.load()
    case.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_letter_that_was_replayed_is_not_replayed_again(nth: int) -> None:
    """The deposed broker does not know its mark."""
    orders = failed()
    deposed = orders.driver.broker.depose(lambda: False)
    assert replayer(orders).run(Choice()).letters == len(BAD)
    deposed.asked_by = Nth(nth)
    with suppress(UnreachableError):  # the deposed broker does not know a topic that was created since
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
    deposed = case.broker.depose(lambda: False)
    case.send(*KEYS)
    case.copy()
    case.send(*KEYS)
    deposed.asked_by = Nth(nth)
    case.copy()
    case.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_task_that_was_revived_is_retired_once_more(nth: int) -> None:
    """The deposed broker still shows the old mark, which says that there is nothing to do."""
    sums = Sums.begun()
    driver, tasks = sums.driver, [sums.task]
    driver.stop()
    retire(tasks, "next", "test", driver._world(), driver.settings)
    deposed = driver.broker.depose(lambda: False)
    revive(tasks, "test", driver._world(), driver.settings)
    deposed.asked_by = Nth(nth)
    assert list(retire(tasks, "next", "test", driver._world(), driver.settings)) == tasks
    driver.broker.heal()
    assert last_of(TaskId("sums", "main", 0), driver._world().journals()).entry.kind is Kind.RETIRE
    with pytest.raises(ConfigError, match="was retired"):
        driver.run()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_revived_app_starts_whatever_a_deposed_broker_says(nth: int) -> None:
    """Its old answer is that the app was retired."""
    sums = Sums.begun()
    driver, tasks = sums.driver, [sums.task]
    driver.stop()
    retire(tasks, "next", "test", driver._world(), driver.settings)
    deposed = driver.broker.depose(lambda: False)
    revive(tasks, "test", driver._world(), driver.settings)
    deposed.asked_by = Nth(nth)
    sums.send(2)
    driver.run()
    driver.broker.heal()
    driver.run()
    sums.check()

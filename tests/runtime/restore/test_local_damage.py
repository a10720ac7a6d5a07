"""Local states that are damaged, old or of another history."""

from __future__ import annotations

import pytest

from pipeline.errors import CorruptStateError, DamagedStateError
from tests.support.runtime.sums import Sums


def test_a_corrupt_local_state_is_set_aside_and_rebuilt_from_the_journal() -> None:
    """The state is a cache of the journal: damage costs time, not data."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.crash()
    sums.driver.stores.corrupt(sums.task)
    sums.driver.restart()
    sums.send(3)
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("deferred", [False, True])
def test_damage_that_is_met_while_running_is_set_aside_and_the_task_restored(deferred: bool) -> None:
    """A flipped byte shows when its block is read, which may be days after the start; the journal has it whole."""
    sums = Sums(deferred=deferred)
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.restart()  # so that nothing is cached
    sums.send(3)
    sums.driver.stores.fail_next("get", DamagedStateError("a block fails its checksum"))
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    assert len(sums.driver.stores._aside) == 1
    sums.send(4)
    sums.driver.run()
    sums.check()


def test_a_state_that_is_damaged_again_stops_its_task() -> None:
    """Endless restores would fill the disk with old states, and hide that the disk is failing."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    sums.driver.restart()
    sums.send(3)
    for _ in range(2):
        sums.driver.stores.fail_next("get", DamagedStateError("a block fails its checksum"))
    with pytest.raises(DamagedStateError, match="fails its checksum"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_machine_that_loses_its_last_writes_replays_them() -> None:
    """The write-ahead log is not synced: after a power failure the state is older, never torn."""
    sums = Sums()
    for number in range(5):
        sums.send(number)
        sums.driver.run()
    sums.driver.stores.crash(lost_batches=3)
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_write_error_of_the_store_stops_the_task_and_loses_nothing() -> None:
    """A full disk must not become a hole in the state: the entry is in the journal and is applied next time."""
    sums = Sums.begun()
    sums.driver.stores.fail_next("apply", CorruptStateError("no space left"))
    sums.send(2)
    with pytest.raises(CorruptStateError, match="no space left"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_state_of_another_history_is_set_aside() -> None:
    """A directory copied from elsewhere may stand at the same seq and offset; the chain tells it apart."""
    sums, other = Sums(), Sums(seed=1)
    for history, number in ((sums, 1), (other, 1000)):
        history.send(number)
        history.driver.run()
        history.driver.crash()
    sums.driver.stores = other.driver.stores
    sums.driver.restart()
    sums.send(2)
    sums.driver.run()
    sums.check()

"""What people are told about checkpoints, and what is deleted at their word."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pipeline.core.checkpoint import KEPT
from pipeline.errors import StaleReadError
from pipeline.ops.checkpoints import Inventory, inventory_of, prune, store_time_ms, verify
from pipeline.ports import Step
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.checkpointed import begins_at, eager, kept, manifest, prefix, with_history
from tests.support.runtime.sums import Sums


def inventory(sums: Sums, grace_s: float = 0.0) -> Inventory:
    driver = sums.driver
    reader = MemoryJournalReader(driver.broker)
    return inventory_of(
        sums.task, MemoryBroker.cluster_id, reader, driver.checkpoints, driver.clock.wall_ms(), grace_s
    )


def verified(sums: Sums) -> list[str | None]:
    """The problem of each checkpoint, newest first."""
    found = verify(inventory(sums), sums.driver.checkpoints, lambda _size: None)
    return [holding.problem for holding in found.holdings]


def with_strays() -> Sums:
    """A worker died between its upload and its manifest."""
    sums = with_history()
    sums.send(5)
    sums.driver.crash_at(Step.BEFORE_MANIFEST)
    sums.driver.run()
    assert sums.driver.crashed
    return sums


def test_ages_are_by_the_clock_of_the_store() -> None:
    """A machine whose clock is a day ahead would delete an upload that is under way."""
    sums = with_strays()
    store, clock = sums.driver.checkpoints, sums.driver.clock
    before = sorted(found.name for found in store.objects(""))
    group = sums.task.group_id
    assert store_time_ms(MemoryBroker.cluster_id, group, store, b"n") == clock.wall_ms()
    assert sorted(found.name for found in store.objects("")) == before
    clock.advance(90.0)
    assert store_time_ms(MemoryBroker.cluster_id, group, store, b"m") == clock.wall_ms()


def test_everything_that_is_kept_is_listed_newest_first() -> None:
    """What a restore would choose from, in its order."""
    sums = with_history()
    found = inventory(sums)
    assert [holding.ref for holding in found.holdings] == list(kept(sums))
    assert len(found.holdings) == KEPT
    assert [holding.problem for holding in found.holdings] == [None] * KEPT
    assert found.restorable
    assert found.strays == {}
    assert found.journal_start == begins_at(sums)
    assert verified(sums) == [None] * KEPT


def test_a_task_without_checkpoints_is_restorable_from_its_journal() -> None:
    """As long as that begins at its beginning."""
    sums = with_history(checkpoint_store="")
    found = inventory(sums)
    assert (found.holdings, found.restorable) == ((), True)


def test_a_missing_object_is_seen_without_reading_any() -> None:
    """`list` is quick: names and sizes."""
    sums = with_history()
    own = manifest(sums, kept(sums)[0]).objects.keys() - manifest(sums, kept(sums)[1]).objects.keys()
    sums.driver.checkpoints.delete([prefix(sums) + min(own)])
    problems = [holding.problem for holding in inventory(sums).holdings]
    assert problems[0] is not None
    assert "is not in the checkpoint store" in problems[0]
    assert problems[1:] == [None, None]


def test_a_flipped_byte_is_seen_by_verify_only() -> None:
    """Size and name are right; the hash is not."""
    sums = with_history()
    name = prefix(sums) + next(f.object for f in manifest(sums, kept(sums)[0]).files if f.size > 1)
    sums.driver.checkpoints.damage(name, lambda data: bytes([data[0] ^ 1]) + data[1:])
    assert [holding.problem for holding in inventory(sums).holdings] == [None] * KEPT
    found = verified(sums)
    assert found[0] is not None
    assert "damaged" in found[0]


def test_each_object_is_read_once() -> None:
    """Three checkpoints share most of theirs."""
    sums = with_history()
    sizes: list[int] = []
    verify(inventory(sums), sums.driver.checkpoints, sizes.append)
    named = {name: size for ref in kept(sums) for name, size in manifest(sums, ref).objects.items()}
    assert sum(sizes) == sum(named.values())


def test_a_damaged_manifest_is_seen() -> None:
    """And the task is still restorable, from another."""
    sums = with_history()
    sums.driver.checkpoints.damage(prefix(sums) + kept(sums)[0].manifest, lambda data: data[:-1])
    found = inventory(sums)
    assert found.holdings[0].manifest is None
    assert found.holdings[0].problem is not None
    assert found.restorable


def test_a_task_that_nothing_is_left_of_is_seen() -> None:
    """Before it is needed."""
    sums = with_history()
    for ref in kept(sums):
        sums.driver.checkpoints.delete([prefix(sums) + ref.manifest])
    assert not inventory(sums).restorable


def test_prune_deletes_strays_and_nothing_else() -> None:
    """A restore afterwards finds all it found before."""
    sums = with_strays()
    found = inventory(sums)
    assert found.strays.keys() == set(found.prunable)
    assert found.strays
    assert prune(found, sums.driver.checkpoints) == len(found.prunable)
    assert inventory(sums).strays == {}
    assert verified(sums) == [None] * KEPT
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    sums.check()


def test_prune_leaves_what_is_young() -> None:
    """It may be of a checkpoint in the making."""
    sums = with_strays()
    sums.driver.clock.advance(60.0)
    assert inventory(sums, grace_s=3600.0).prunable == ()
    assert inventory(sums, grace_s=30.0).prunable != ()


@pytest.mark.parametrize("made", [0, 6])
def test_prune_leaves_everything_while_it_cannot_tell(made: int) -> None:
    """The journal keeps none, as a new one does; or a kept manifest cannot be read."""
    sums = with_strays() if made else eager(checkpoint_store="")
    if made:
        sums.driver.checkpoints.damage(prefix(sums) + kept(sums)[1].manifest, lambda data: data[:-1])
    else:
        sums.send(1)
        sums.driver.run()
        sums.driver.checkpoints.put(prefix(sums) + "objects/of-another-journal", [b"x"], 1)
    found = inventory(sums)
    assert found.strays
    assert found.prunable == ()


def test_a_prune_by_a_stale_leaders_answer_deletes_nothing_that_is_kept() -> None:
    """By an old end the objects of the newest checkpoints look like strays."""
    sums = with_history()
    driver = sums.driver
    stale_leader = driver.broker.add_stale_leader(lambda: False)
    sums.send(7, key="new")
    driver.run()
    stale_leader.answers = lambda: True
    reader = MemoryJournalReader(driver.broker)
    cluster_id, now_ms = MemoryBroker.cluster_id, driver.clock.wall_ms()
    with suppress(StaleReadError):  # this reader cannot see the end, and says so
        prune(
            inventory_of(sums.task, cluster_id, reader, driver.checkpoints, now_ms, 0.0, to_delete=True),
            driver.checkpoints,
        )
    driver.broker.heal()
    assert verified(sums) == [None] * KEPT

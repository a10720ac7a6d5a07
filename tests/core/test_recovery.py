"""The table of `plan_restore`, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from pipeline.core.checkpoint_refs import CheckpointRef
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery import Candidate, JournalFacts, RestorePlan, Start, plan_restore
from pipeline.errors import CheckpointStoreError, FatalTaskError
from tests.support.core.recovery_case import IDENTITY, TASK, assert_helpful, journal_entry

GENESIS = journal_entry(1, EntryKind.GENESIS)
LATER = journal_entry(50, EntryKind.CHECKPOINT)


def state_at(found: JournalEntry, identity: Identity = IDENTITY) -> AppliedPosition:
    """A local state that has applied `found`."""
    return AppliedPosition(
        found.entry.seq, found.offset, found.next_offset, found.chain, found.entry.positions, identity
    )


def restore(
    local: AppliedPosition | None,
    *,
    first: JournalEntry | None = GENESIS,
    at_local: JournalEntry | None = None,
    end: int = 100,
    damage: str | None = None,
    start: int = 0,
    checkpoints: Sequence[Candidate] = (),
    unavailable: str | None = None,
) -> RestorePlan:
    facts = JournalFacts(first, at_local, end, start)
    return plan_restore(TASK, local, damage, "cluster", facts, checkpoints, unavailable)


def checkpoint(found: JournalEntry, /, **changed: object) -> Candidate:
    """A registered checkpoint that stands at `found`, but for what is changed."""
    ref = CheckpointRef(found.entry.seq, found.offset, found.chain, b"nonce", b"digest", 1, 2, 3)
    return dataclasses.replace(Candidate(ref, found), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [GENESIS, LATER])
def test_restore_continues_from_the_local_state_row_1(first: JournalEntry) -> None:
    """The quick restart: wherever the journal begins, only what follows the local state is replayed."""
    here = journal_entry(60)
    local = state_at(here)
    assert restore(local, first=first, at_local=here, end=200) == RestorePlan(Start.LOCAL, 121, local)


def test_restore_takes_a_local_state_at_the_very_end_row_1() -> None:
    """A clean stop leaves one: nothing is to be replayed, and nothing is lost."""
    here = journal_entry(60)
    assert restore(state_at(here), at_local=here, end=here.next_offset).start is Start.LOCAL


@pytest.mark.parametrize("first", [GENESIS, LATER])
def test_restore_is_refused_beyond_the_journals_end_row_2(first: JournalEntry) -> None:
    """The state holds commits that Kafka has lost; outputs may be lost with them."""
    with pytest.raises(FatalTaskError) as caught:
        restore(state_at(journal_entry(60)), first=first, end=119)
    assert_helpful(caught.value, TASK, "ends at offset 119", "entry 60", "offset 120", "Kafka lost committed")


def test_restore_is_refused_when_the_last_entry_is_cut_row_2() -> None:
    """One offset short is already a lost entry."""
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        restore(state_at(journal_entry(60)), end=120)


@pytest.mark.parametrize(
    "at_local",
    [journal_entry(60, chain=99), journal_entry(59, chain=60), None],
    ids=["another chain", "another seq", "no entry there"],
)
def test_restore_sets_another_history_aside_row_3(at_local: JournalEntry | None) -> None:
    """A state that diverged, say on a disk that came back, is replaced by the journal's; it is not deleted."""
    plan = restore(state_at(journal_entry(60)), at_local=at_local, end=200)
    assert (plan.start, plan.offset, plan.position) == (Start.EMPTY, GENESIS.offset, None)
    assert plan.set_aside is not None
    assert "entry 60" in plan.set_aside


def test_restore_sets_another_history_that_ends_where_this_one_does_aside_row_3() -> None:
    """Its last entry is of another history, and none of this one is missing: Kafka has lost nothing."""
    here = journal_entry(60)
    plan = restore(state_at(here), at_local=journal_entry(60, chain=99), end=here.next_offset)
    assert (plan.start, plan.outdated) == (Start.EMPTY, None)
    assert plan.set_aside is not None


def test_restore_sets_another_history_at_the_journals_first_entry_aside_row_8() -> None:
    """Only what lies below the journal's beginning is surely of no use to anybody, and removed."""
    plan = restore(
        state_at(journal_entry(50)),
        first=LATER,
        at_local=journal_entry(50, chain=99),
        start=100,
        end=200,
        checkpoints=[checkpoint(NEWEST)],
    )
    assert (plan.start, plan.outdated) == (Start.CHECKPOINT, None)
    assert plan.set_aside is not None


def test_restore_sets_a_state_of_another_cluster_aside_row_3() -> None:
    """Even when offset, seq and chain agree by a copied topic: ids of topics differ there."""
    here = journal_entry(60)
    foreign = state_at(here, msgspec.structs.replace(IDENTITY, cluster_id="staging"))
    plan = restore(foreign, at_local=here)
    assert plan.start is Start.EMPTY
    assert plan.set_aside == "it belongs to Kafka cluster staging, this is cluster"


def test_restore_of_another_cluster_never_blames_kafka_row_3() -> None:
    """Beyond the end of a journal that is not its own is no lost tail."""
    foreign = state_at(journal_entry(60), msgspec.structs.replace(IDENTITY, cluster_id="staging"))
    assert restore(foreign, end=10).start is Start.EMPTY


def test_restore_sets_an_unreadable_state_aside_row_4() -> None:
    """The journal is whole, so a broken disk costs time, never data."""
    plan = restore(None, damage="its checksum is wrong")
    assert plan == RestorePlan(Start.EMPTY, GENESIS.offset, None, set_aside="its checksum is wrong")


def test_restore_starts_empty_row_5() -> None:
    """A new disk: everything comes from the journal, and nothing is set aside."""
    assert restore(None) == RestorePlan(Start.EMPTY, GENESIS.offset, None)


@pytest.mark.parametrize(
    ("local", "damage", "why"),
    [
        (None, None, "there is no local state"),
        (None, "its checksum is wrong", "its checksum is wrong"),
        (state_at(journal_entry(60)), None, "its entry 60 is not the one"),
        (
            state_at(journal_entry(60), msgspec.structs.replace(IDENTITY, cluster_id="staging")),
            None,
            "Kafka cluster staging",
        ),
    ],
    ids=["none", "unreadable", "another history", "another cluster"],
)
def test_restore_is_refused_without_anything_to_start_from_row_6(
    local: AppliedPosition | None, damage: str | None, why: str
) -> None:
    """A journal that begins later needs a state to begin with; starting empty would lose what was before."""
    with pytest.raises(FatalTaskError) as caught:
        restore(local, damage=damage, first=LATER, end=200)
    assert_helpful(caught.value, TASK, "nothing to restore", "begins at entry 50", why, "names no checkpoint")


@pytest.mark.parametrize("local", [None, state_at(journal_entry(60))])
@pytest.mark.parametrize("damage", [None, "its checksum is wrong"])
def test_restore_is_refused_from_an_empty_journal_row_7(
    local: AppliedPosition | None, damage: str | None
) -> None:
    """The genesis entry existed when the worker started, so the journal was deleted since."""
    with pytest.raises(FatalTaskError) as caught:
        restore(local, first=None, damage=damage, end=0)
    assert_helpful(caught.value, TASK, "holds no entry")


NEWEST, OLDER = journal_entry(55), journal_entry(52)


@pytest.mark.parametrize("first", [GENESIS, LATER])
@pytest.mark.parametrize(
    ("local", "damage"),
    [
        (state_at(journal_entry(60)), None),
        (state_at(journal_entry(60), msgspec.structs.replace(IDENTITY, cluster_id="staging")), None),
        (None, "its checksum is wrong"),
    ],
    ids=["another history", "another cluster", "unreadable"],
)
def test_restore_takes_the_newest_checkpoint_for_a_state_that_cannot_be_used_row_8(
    first: JournalEntry, local: AppliedPosition | None, damage: str | None
) -> None:
    """It is faster than reading the whole journal; the old state is kept for diagnosis."""
    candidates = [checkpoint(NEWEST), checkpoint(OLDER)]
    plan = restore(local, damage=damage, first=first, start=first.offset, end=200, checkpoints=candidates)
    assert (plan.start, plan.offset, plan.checkpoint) == (Start.CHECKPOINT, 111, candidates[0].ref)
    assert plan.head == NEWEST
    assert plan.set_aside is not None
    assert plan.outdated is None


@pytest.mark.parametrize("first", [GENESIS, LATER])
def test_restore_takes_the_newest_checkpoint_on_an_empty_disk_row_9(first: JournalEntry) -> None:
    """What bounds the time of a restore."""
    plan = restore(None, first=first, checkpoints=[checkpoint(NEWEST), checkpoint(OLDER)])
    assert plan == RestorePlan(Start.CHECKPOINT, 111, None, checkpoint=checkpoint(NEWEST).ref, head=NEWEST)


@pytest.mark.parametrize(
    "unusable",
    [
        checkpoint(NEWEST, refused="its manifest is damaged"),
        checkpoint(NEWEST, found=None),
        checkpoint(NEWEST, found=journal_entry(55, chain=99)),
        checkpoint(NEWEST, found=journal_entry(54, chain=55)),
    ],
    ids=["damaged", "no entry", "another chain", "another seq"],
)
def test_restore_takes_the_checkpoint_before_one_that_cannot_be_used_row_9(unusable: Candidate) -> None:
    """Three are kept for this; and a checkpoint of another history would be a state that never was."""
    assert restore(None, first=LATER, checkpoints=[unusable, checkpoint(OLDER)]).checkpoint is not None
    assert restore(None, checkpoints=[unusable]) == RestorePlan(Start.EMPTY, GENESIS.offset, None)
    with pytest.raises(FatalTaskError) as caught:
        restore(None, first=LATER, checkpoints=[unusable])
    assert_helpful(caught.value, TASK, "there is no local state", "checkpoint 55 cannot be used")


def test_restore_leaves_a_state_that_fits_for_no_checkpoint_row_1() -> None:
    """However old it is: copying takes longer than reading on."""
    here = journal_entry(51)
    newer = [checkpoint(NEWEST)]
    assert restore(state_at(here), first=LATER, at_local=here, checkpoints=newer).start is Start.LOCAL


def test_restore_is_refused_beyond_the_journals_end_whatever_is_kept_row_2() -> None:
    """A checkpoint would hide that Kafka has lost what was committed."""
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        restore(state_at(journal_entry(60)), end=119, checkpoints=[checkpoint(NEWEST)])


def test_restore_replaces_a_state_that_the_journal_has_left_behind_row_10() -> None:
    """A worker that gets a task back after a day: its state is of this history, and of no use to anybody."""
    plan = restore(state_at(journal_entry(40)), first=LATER, start=100, checkpoints=[checkpoint(NEWEST)])
    assert (plan.start, plan.set_aside) == (Start.CHECKPOINT, None)
    assert plan.outdated is not None
    assert "no longer in the journal" in plan.outdated


def test_restore_says_that_a_state_is_left_behind_and_each_checkpoint_refused_row_6() -> None:
    """The operator must know why each possible source cannot be used."""
    with pytest.raises(FatalTaskError) as caught:
        restore(
            state_at(journal_entry(40)),
            first=LATER,
            start=100,
            checkpoints=[checkpoint(NEWEST, refused="it is cut")],
        )
    assert_helpful(caught.value, "no longer in the journal", "cannot be used: it is cut")
    assert "names no checkpoint" not in caught.value.message


def test_restore_reads_the_whole_journal_while_the_store_is_away_row_11() -> None:
    """It is slower, but needs no operator."""
    plan = restore(None, checkpoints=[checkpoint(NEWEST)], unavailable="the store does not answer")
    assert plan == RestorePlan(Start.EMPTY, GENESIS.offset, None)


def test_restore_waits_for_the_store_where_nothing_else_is_left_row_12() -> None:
    """An outage is no loss: the task must not fail for good."""
    with pytest.raises(CheckpointStoreError) as caught:
        restore(None, first=LATER, checkpoints=[checkpoint(NEWEST)], unavailable="the store does not answer")
    assert_helpful(caught.value, TASK, "the store does not answer")

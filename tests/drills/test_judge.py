"""What the raw journals prove: each input offset is in exactly one committed entry, or the first one that is not."""

from __future__ import annotations

from pipeline.core.journal_format import Identity
from pipeline.core.position import AppliedPosition
from pipeline.drills.report import Effect
from tests.support.drills.journals import TASK, TOPIC, Journal


def _effects(journal: Journal) -> list[tuple[str, str, int | None]]:
    return [(each.kind, each.topic, each.offset) for each in journal.judge.verdict().effects]


def test_a_correct_history_proves_each_offset_once() -> None:
    """Otherwise every drill would deviate."""
    journal = Journal()
    for position in (10, 25, 25, 40):
        journal.commit(position)
    journal.acquire("b", 40)
    journal.commit(55, "b")
    found = journal.judge.verdict()
    assert (found.exactly_once, found.chain_intact, found.effects) == (True, True, [])
    assert (found.entries, found.input_offsets) == (7, 55)


def test_a_fork_is_found_with_its_first_duplicate() -> None:
    """Two owners that commit after the same entry have processed the same inputs."""
    journal = Journal()
    before = journal.commit(10)
    journal.commit(20)
    journal.commit(18, after=before)
    assert _effects(journal) == [("fork", TOPIC, 10), ("duplicate", TOPIC, 10)]
    assert not journal.judge.verdict().chain_intact


def test_a_fork_is_reported_once_although_both_branches_grow() -> None:
    """One break must not hide behind a thousand lines about it."""
    journal = Journal()
    before = journal.commit(10)
    one = journal.commit(20)
    other = journal.commit(18, after=before)
    for step in range(1, 5):
        one = journal.commit(20 + step, after=one)
        other = journal.commit(18 + step, after=other)
    assert [kind for kind, _, _ in _effects(journal)] == ["fork", "duplicate"]


def test_a_missing_entry_is_a_loss_from_the_last_position() -> None:
    """The outputs and table writes of an entry that is not there are lost."""
    journal = Journal()
    seen = journal.commit(10)
    unseen = Journal()
    unseen.head = seen
    lost = unseen.commit(20)
    journal.commit(30, after=lost)
    assert _effects(journal) == [("loss", TOPIC, 10)]
    assert not journal.judge.verdict().exactly_once


def test_positions_that_fall_are_duplicates() -> None:
    """The inputs between the two positions are processed again."""
    journal = Journal()
    journal.commit(30)
    journal.commit(20)
    assert _effects(journal) == [("duplicate", TOPIC, 20)]


def test_a_reset_may_move_positions_back() -> None:
    """An operator who resets a group during a drill has not broken anything."""
    journal = Journal()
    journal.commit(30)
    journal.reset(5)
    journal.acquire("a", 5)
    journal.commit(9)
    assert _effects(journal) == []


def test_each_partition_of_a_task_is_judged_alone() -> None:
    """An entry contains the positions of all of them, and most entries move only some."""
    journal = Journal((0, 0, 0))
    before = journal.commit((10, 0, 0))
    journal.commit((10, 5, 7))
    journal.commit((10, 4, 9), after=before)
    assert _effects(journal) == [
        ("fork", "orders[11]", 0),
        ("duplicate", "orders[11]", 0),
        ("duplicate", "orders[19]", 0),
    ]
    assert journal.judge.verdict().input_offsets == 10 + 5 + 9


def test_a_reset_of_one_partition_may_move_only_its_position() -> None:
    """The positions of the others must not fall: their records would be processed twice with their old rows."""
    journal = Journal((0, 0))
    journal.commit((30, 40))
    journal.reset((30, 5), 11)
    journal.acquire("a", (30, 5))
    journal.commit((31, 9))
    assert _effects(journal) == []
    journal.reset((20, 0), 11)
    assert _effects(journal) == [("duplicate", "orders[3]", 20)]
    journal.reset((0, 0))
    journal.commit((50, 60))
    assert len(_effects(journal)) == 1


def test_a_commit_of_a_former_owner_is_a_fork() -> None:
    """A zombie that was not fenced continues the chain of its successor, and so leaves it intact."""
    journal = Journal()
    journal.commit(10)
    journal.acquire("b", 10)
    journal.commit(20, "a")
    journal.commit(30, "a")
    assert _effects(journal) == [("fork", TOPIC, 10)]


def test_a_foreign_record_is_damage_and_the_rest_is_judged() -> None:
    """The judge must see the effects after the first damage, too."""
    journal = Journal()
    journal.commit(10)
    journal.foreign_record()
    journal.commit(5)
    assert _effects(journal) == [("damage", "", None), ("duplicate", TOPIC, 5)]


def test_effects_name_the_place_in_the_journal() -> None:
    """An operator must find the entry with pipeline journal show."""
    journal = Journal()
    journal.commit(30)
    journal.commit(20)
    (effect,) = journal.judge.verdict().effects
    assert isinstance(effect, Effect)
    assert effect.task == "main/3"
    assert effect.journal_offset > 0


def test_an_entry_that_only_a_worker_has_is_a_loss() -> None:
    """The last entry has no successor that shows its absence, and the worker has applied it as confirmed."""
    journal = Journal()
    journal.commit(10)
    kept = journal.commit(20)
    assert journal.judge.has(TASK, kept.chain)
    identity = Identity("cluster", "murmur2", {}, {}, "")
    lost = AppliedPosition(kept.seq + 1, 90, 91, b"x" * 16, {TOPIC: 35}, identity)
    assert not journal.judge.has(TASK, lost.chain)
    journal.judge.miss(TASK, lost, "a")
    found = journal.judge.verdict()
    (effect,) = found.effects
    assert (effect.kind, effect.topic, effect.offset, effect.journal_offset) == ("loss", TOPIC, 20, 90)
    assert "worker a has applied entry" in effect.text
    assert (found.exactly_once, found.chain_intact) == (False, False)

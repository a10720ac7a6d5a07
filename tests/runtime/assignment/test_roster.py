"""One worker's view of the others."""

from __future__ import annotations

import pytest

from pipeline.config import WorkerSettings
from pipeline.core.membership import Member
from pipeline.core.names import TaskId, workers_topic
from pipeline.core.notes import Claim, Owner, decode_note, encode_note
from pipeline.errors import UnreachableError
from pipeline.ports import TopicSpec
from pipeline.runtime.assignment.roster import RosterWatch
from pipeline.testing.memory_members import MemoryMembers
from tests.support.runtime.sums import Sums

TASK = TaskId("sums", "main", 0)
ME = Member("me", "5-x", 1, "p")


class Watched:
    """A watch on an in-memory Kafka, joined."""

    def __init__(self) -> None:
        self.driver = Sums().driver
        self.turns = 0
        self.watch = RosterWatch("sums", ME, self.driver.environment(), WorkerSettings())
        self.watch.join(lambda: self.turns)

    def note(self, about: Owner | Claim) -> None:
        """A worker writes a note."""
        others = MemoryMembers(self.driver.broker, self.driver.clock)
        others.announce(workers_topic("sums"), [encode_note(TASK, about)])

    def turn(self, seconds: float = 2.0) -> None:
        self.driver.clock.advance(seconds)
        self.turns += 1
        self.watch.turn()
        self.watch.turn()  # what was asked for has come

    @property
    def owner(self) -> Owner | None:
        return self.watch.roster.owners.get(TASK)


def test_the_owner_by_the_later_entry_counts_whichever_note_comes_later() -> None:
    """A worker that was asleep says what was true before."""
    watched = Watched()
    watched.note(Owner(7, "a", "1-a"))
    watched.note(Owner(3, "b", "1-b"))
    watched.turn()
    assert watched.owner == Owner(7, "a", "1-a")
    watched.note(Owner(7, "a", "1-a", released=True))
    watched.note(Owner(7, "a", "1-a"))
    watched.turn()
    assert watched.owner == Owner(7, "a", "1-a", released=True)


def test_what_was_said_wrongly_about_an_own_task_is_said_again() -> None:
    """A newcomer knows only what compaction left: the last note, not the right one."""
    watched = Watched()
    mine = Owner(9, "me", ME.process)
    watched.watch.note(TASK, mine)
    watched.turn()
    watched.note(Owner(3, "b", "1-b"))
    for _ in range(5):
        watched.turn()
    newcomer = RosterWatch(
        "sums", ME._replace(worker="new", process="6-y"), watched.driver.environment(), WorkerSettings()
    )
    newcomer.join(lambda: 0)
    newcomer.turn()
    newcomer.turn()
    assert newcomer._last_read[TASK] == mine


def test_notes_that_could_not_be_written_are_written_later() -> None:
    """Kafka may be away for a while; without the note others wait for a hand-over that has happened."""
    watched = Watched()
    watched.driver.broker.fail_next("announce", UnreachableError("away"))
    watched.watch.note(TASK, Owner(9, "me", ME.process))
    for _ in range(4):
        watched.turn()
    records = watched.driver.broker.records(workers_topic("sums"))
    assert {record.key() for record in records} == {b"owner/main/0"}


@pytest.mark.parametrize("again", [True, False])
def test_a_claim_that_could_not_be_written_is_written_later_unless_it_was_taken_back(again: bool) -> None:
    """Without it the owner waits for a follower that has been ready all along."""
    watched = Watched()
    watched.driver.broker.fail_next("announce", UnreachableError("away"))
    watched.watch.note(TASK, Claim("me", ME.process, ready=True))
    watched.watch.turn()  # it is on its way, and will not arrive
    if not again:
        watched.watch.note(TASK, Claim("", ""))
    for _ in range(3):
        watched.turn()
    (record,) = watched.driver.broker.records(workers_topic("sums"))
    found = decode_note("sums", record.value() or b"")
    assert found == (TASK, Claim("me", ME.process, ready=True) if again else Claim("", ""))


def test_who_leaves_says_so_although_the_last_notes_were_lost() -> None:
    """Else it is waited for until Kafka misses it."""
    watched = Watched()
    watched.driver.broker.fail_next("announce", UnreachableError("away"))
    watched.watch.note(TASK, Owner(9, "me", ME.process, released=True))
    watched.watch.turn()
    watched.watch.depart()
    keys = [record.key() for record in watched.driver.broker.records(workers_topic("sums"))]
    assert keys == [b"owner/main/0", b"left/me"]


def test_a_look_that_fails_changes_nothing() -> None:
    """While Kafka is unreachable, no worker is treated as dead."""
    watched = Watched()
    watched.turn()
    before = watched.watch.roster
    watched.driver.broker.faults.order("member_ids", UnreachableError("away"))
    watched.turn()
    assert watched.watch.roster == before


def test_a_topic_that_is_new_is_read_from_its_beginning() -> None:
    """After its deletion, the workers write their notes again, at offsets that were read before."""
    watched = Watched()
    for seq in range(5):
        watched.note(Owner(seq, "a", "1-a"))
    watched.turn()
    topic = workers_topic("sums")
    watched.driver.broker.delete(topic)
    watched.driver.environment().cluster.create([TopicSpec(topic, 1)])
    watched.note(Owner(8, "a", "1-a"))
    watched.turn()
    assert watched.owner == Owner(8, "a", "1-a")


def test_it_is_settled_when_it_is_listed_and_the_members_have_stayed_the_same() -> None:
    """Three workers that start in one second must not each begin with everything."""
    watched = Watched()
    assert not watched.watch.settled
    watched.turn(0.3)
    assert not watched.watch.settled
    for _ in range(5):
        watched.turn(0.3)
    assert watched.watch.settled


def test_a_note_that_a_later_owner_replaced_is_not_written_again() -> None:
    """Two workers would otherwise write their notes about a task in turn, forever."""
    watched = Watched()
    watched.watch.note(TASK, Owner(9, "me", ME.process, released=True))
    watched.turn()
    watched.note(Owner(10, "b", "1-b"))
    for _ in range(5):
        watched.turn()
    records = watched.driver.broker.records(workers_topic("sums"))
    assert [record.key() for record in records].count(b"owner/main/0") == 2

"""`prove_read`: what a write behind the fence proves about a read before it, and what it refuses."""

from __future__ import annotations

import re

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import AbortableError, UnreachableError
from pipeline.ports import Output, TopicSpec
from pipeline.testing import ManualClock, MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader
from pipeline.transactions.engine import TransactionEngine
from pipeline.transactions.proof import prove_read
from tests.support.transactions.slow import SlowEnds

JOURNAL = TopicPartition("journal", 0)
TIMEOUT_S = 30.0


class Journal:
    """A journal with three committed records, and an engine that is fenced. `clients`: the readers opened so far."""

    def __init__(self) -> None:
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.broker.create(TopicSpec("journal", 1))
        self.engine = TransactionEngine("new", SlowEnds(self.broker, self.clock), self.clock, 100)
        self.clients = 0
        self.write_elsewhere(3)
        self.engine.fence()

    def write_elsewhere(self, count: int = 1) -> None:
        """Records that another producer commits."""
        self.broker.produce(*[Output("journal", None, b"entry", 1)] * count)

    def end_read(self) -> int:
        """The end according to the broker that a new client asks."""
        return self._reader().bounds(JOURNAL).stable_end

    def write_ours(self) -> int:
        """Our record, in a transaction that stays open. Returns its offset."""
        self.engine.begin()
        self.engine.append(JOURNAL, [b"ours"])
        return self.engine.flush()

    def prove(self, end_read: int, offset: int, timeout_s: float = TIMEOUT_S) -> None:
        prove_read(JOURNAL, end_read, offset, journals=self._reader, clock=self.clock, timeout_s=timeout_s)

    def _reader(self) -> MemoryJournalReader:
        self.clients += 1
        return MemoryJournalReader(self.broker)


def test_a_read_up_to_our_own_record_is_proven() -> None:
    """Nothing lies between what was read and what we wrote, so nothing is unseen; no reader is needed."""
    journal = Journal()
    end = journal.end_read()
    journal.clients = 0
    journal.prove(end, journal.write_ours())
    assert journal.clients == 0


def test_aborted_records_in_between_are_proven() -> None:
    """A barrier or an aborted attempt moves the end, and commits nothing that was missed."""
    journal = Journal()
    end = journal.end_read()
    journal.engine.barrier([JOURNAL])
    offset = journal.write_ours()
    assert offset > end
    journal.prove(end, offset)


def test_a_committed_record_in_between_is_refused() -> None:
    """The entry after ours would have the same number as a committed one: the journal would fork."""
    journal = Journal()
    end = journal.end_read()
    journal.write_elsewhere()
    with pytest.raises(AbortableError, match=re.escape(f"committed between offset {end}")):
        journal.prove(end, journal.write_ours())


def test_the_end_of_a_stale_leader_is_refused() -> None:
    """It answers with an old end, and later reads go to a broker that has the records."""
    journal = Journal()
    journal.broker.add_stale_leader(lambda: journal.clients == 1)
    journal.write_elsewhere()
    end = journal.end_read()
    assert end == 3
    with pytest.raises(AbortableError, match="were committed between offset 3"):
        journal.prove(end, journal.write_ours())


def test_a_stale_leader_that_answers_every_read_proves_nothing() -> None:
    """Otherwise a read would be proven by the broker that made the mistake."""
    journal = Journal()
    journal.broker.add_stale_leader()
    journal.write_elsewhere()
    offset = journal.write_ours()
    with pytest.raises(
        AbortableError, match=f"readers see it end at 3, below the offset {offset}"
    ) as refused:
        journal.prove(3, offset)
    assert "may be a stale leader" in (refused.value.hint or "")
    assert TIMEOUT_S <= journal.clock.monotonic_s() < TIMEOUT_S + 1.0


def test_a_proof_succeeds_once_a_new_client_reaches_the_leader() -> None:
    """Each attempt has a new client, because a client stays with the broker that it has found."""
    journal = Journal()
    end = journal.end_read()
    journal.broker.add_stale_leader(lambda: journal.clients < 5)
    journal.engine.barrier([JOURNAL])
    journal.prove(end, journal.write_ours())
    assert journal.clients == 5


def test_a_proof_continues_after_a_short_outage() -> None:
    """A broker that restarts must not cost the commit."""
    journal = Journal()
    end = journal.end_read()
    journal.engine.barrier([JOURNAL])
    offset = journal.write_ours()
    for _ in range(5):
        journal.broker.fail_next("bounds", UnreachableError("no answer"))
    journal.prove(end, offset)
    assert journal.broker.faults.left() == []


def test_an_outage_ends_the_proof_and_is_not_called_stale() -> None:
    """The operator must look for an unreachable broker, not for a stale leader."""
    journal = Journal()
    end = journal.end_read()
    journal.engine.barrier([JOURNAL])
    offset = journal.write_ours()
    for _ in range(1000):
        journal.broker.fail_next("bounds", UnreachableError("no answer"))
    with pytest.raises(AbortableError, match=r"no broker answered .* within 30 s: no answer") as refused:
        journal.prove(end, offset)
    assert "controllers" not in (refused.value.hint or "")
    assert journal.clock.monotonic_s() < TIMEOUT_S + 1.0


def test_without_time_left_a_proof_reads_once() -> None:
    """What was read quickly is proven, however long the records took to be delivered."""
    journal = Journal()
    end = journal.end_read()
    journal.engine.barrier([JOURNAL])
    offset = journal.write_ours()
    journal.prove(end, offset, timeout_s=0.0)
    journal.broker.fail_next("bounds", UnreachableError("no answer"))
    with pytest.raises(AbortableError):
        journal.prove(end, offset, timeout_s=0.0)

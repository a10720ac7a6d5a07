"""The journal's end, while a transaction is open behind it: waited for, fenced once more, and then named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError
from pipeline.ports import JournalBounds, Output
from pipeline.runtime.commit.journal_reader import settled_end
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.sums import Sums

STRANGER = "somebody-else"


class Watched(MemoryJournalReader):
    """A reader that says when it is asked for the journal's ends."""

    def __init__(self, broker: MemoryBroker, asked: Callable[[], None]) -> None:
        super().__init__(broker)
        self._asked = asked

    def bounds(self, journal: TopicPartition) -> JournalBounds:
        self._asked()
        return super().bounds(journal)


class Case:
    """A task with another producer's open transaction in its journal."""

    def __init__(self) -> None:
        self.sums = Sums()
        self.sums.send(1)
        self.sums.driver.run()
        self.sums.driver.stop()
        broker = self.sums.driver.broker
        self.end = broker.bounds(self.sums.task.journal)[2]
        broker.write(
            STRANGER, broker.init(STRANGER), [(Output(self.sums.task.journal.topic, None, b"x", 1), 0)]
        )
        self.fences = 0
        self.asked = 0

    def settle(self, *, ends_after: int = -1, ends_by_fence: bool = False) -> int:
        """`ends_after`: so many looks, the coordinator aborts it; `ends_by_fence`: our init does."""
        driver = self.sums.driver

        def asked() -> None:
            self.asked += 1
            if self.asked == ends_after:
                driver.broker.expire(STRANGER)

        def fence() -> None:
            self.fences += 1
            if ends_by_fence:
                driver.broker.expire(STRANGER)

        environment = replace(driver.environment(), journals=lambda: Watched(driver.broker, asked))
        return settled_end(self.sums.task, environment, driver.settings, fence)


def test_a_transaction_that_ends_late_is_waited_for() -> None:
    """Its marker is on its way: to read up to the stable end would miss what it may have committed."""
    case = Case()
    assert case.settle(ends_after=5) == case.end + 2  # what it wrote, and its marker
    assert case.fences == 0


def test_a_transaction_that_outlives_its_time_out_is_fenced_once_more() -> None:
    """The first fence may have been lost with a coordinator."""
    case = Case()
    began = case.sums.driver.clock.monotonic_s()
    assert case.settle(ends_by_fence=True) == case.end + 2
    assert case.fences == 1
    waited = case.sums.driver.clock.monotonic_s() - began
    assert waited > case.sums.driver.settings.transaction_timeout_ms / 1000 + 10  # the coordinator's scan


def test_a_transaction_that_hangs_is_named_and_nothing_is_written_behind_it() -> None:
    """Committed readers of the journal would wait for it forever; what proves it is an aborted record."""
    case = Case()
    driver = case.sums.driver
    driver.restart()
    case.sums.send(2)
    with pytest.raises(FatalTaskError) as caught:
        driver.run()
    assert caught.value.message == (
        f"a transaction hangs in sums.main.journal[0]: committed records end at {case.end}, the log at {case.end + 3}"
    )
    assert "runbooks/hanging-transaction.md" in (caught.value.hint or "")
    driver.broker.expire(STRANGER)  # as an operator's abort does
    driver.restart()
    driver.run()
    case.sums.check()

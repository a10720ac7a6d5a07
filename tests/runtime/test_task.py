"""A live task on in-memory ports: what is sealed, and what goes on beside it."""

from __future__ import annotations

from pipeline.ports import Step
from tests.runtime.sums import Sums


def test_what_is_processed_after_the_seal_is_no_part_of_the_sealed_commit() -> None:
    """Its positions, writes and outputs belong together; one that ran ahead would lose or double records."""
    sums = Sums(deferred=True)
    sums.send(1)
    sums.driver.run()
    sums.send(2)
    sums.driver.step()
    sums.driver.clock.advance(1.0)
    sums.driver.step()  # sealed; published when the executor gets to it
    sums.send(3)
    sums.send(4, key="b")
    sums.driver.step()
    sums.driver.crash_at(Step.AFTER_COMMIT)
    sums.driver.run()
    assert sums.driver.crashed
    assert [event.value.count for event in sums.driver.outputs(sums.sums)] == [1, 2]
    sums.driver.restart()
    sums.driver.run()
    sums.check()

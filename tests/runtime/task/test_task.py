"""A live task on in-memory ports: what is sealed, and what continues meanwhile."""

from __future__ import annotations

from pipeline.core.journal_format import EntryKind
from pipeline.ports import Step
from pipeline.runtime.commit.journal_reader import last_entries
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.sums import Sums


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


def test_a_task_that_is_given_up_commits_what_is_open_first_and_takes_nothing_more() -> None:
    """The release entry is the last one: the next owner continues from its positions."""
    sums = Sums(deferred=True)
    sums.send(1)
    sums.driver.run()
    (run,) = sums.driver.worker.runs
    sums.send(2, 3)
    sums.driver.step()  # processed, and open
    task = run.tasks[0]
    late = sums.driver.broker.records(sums.numbers.name)[-1]
    run.release(0)
    task.offer(sums.numbers.name, [late])  # fetched before it was given up
    while 0 in run.leaving:
        sums.driver.step()
        while sums.driver.run_deferred():
            pass
    reader = MemoryJournalReader(sums.driver.broker)
    entries = last_entries(sums.task.journal, reader, reader.bounds(sums.task.journal), 2)
    assert [entry.entry.kind for entry in entries] == [EntryKind.COMMIT, EntryKind.RELEASE]
    assert [entry.entry.positions for entry in entries] == [{"numbers": 3}] * 2
    sums.driver.restart()
    sums.driver.run()
    sums.check()

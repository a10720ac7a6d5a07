"""What `pipeline status` finds out from Kafka alone."""

from __future__ import annotations

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, InputError
from pipeline.ports import Output
from pipeline.runtime.status import AppStatus, TaskPhase, read_status
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.fleet import REST_S, TURN_S, Fleet


def look(fleet: Fleet) -> AppStatus:
    cluster, reader = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    return read_status("sums", cluster, reader, fleet.clock.wall_ms())


def phases(found: AppStatus) -> set[TaskPhase]:
    return {status.phase for status in found.tasks}


def missed(fleet: Fleet) -> None:
    """Advance the clock past the time after which dead workers are removed; no other worker runs."""
    look(fleet)  # members are seen to be alive when somebody looks
    fleet.clock.advance(11.0)


def test_an_app_that_is_well_has_all_tasks_live_with_their_workers_and_no_problem() -> None:
    """The first thing anybody wants to know, and the exit code of the command."""
    fleet = Fleet.at_rest("a", "b")
    found = look(fleet)
    assert phases(found) == {TaskPhase.LIVE}
    assert found.problems == []
    assert {worker.worker: worker.tasks for worker in found.workers} == {"a": 2, "b": 2}
    owners = {
        name: [status.task.number for status in found.tasks if status.worker == name] for name in ("a", "b")
    }
    assert owners == fleet.owners()
    assert sum(status.lag for status in found.tasks) == 0
    assert all(status.entry_ms for status in found.tasks)


def test_an_unknown_app_is_named() -> None:
    """Mostly MODULE:APP was given, or no worker ever ran."""
    fleet = Fleet(partitions=1)
    with pytest.raises(InputError, match=r"this Kafka has no app sums\n"):
        look(fleet)


def test_a_mistyped_app_gets_the_name_of_one_that_exists() -> None:
    """Its topics are known, so the reader need not list them."""
    fleet = Fleet.at_rest("a")
    cluster, reader = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    with pytest.raises(InputError, match="this Kafka has no app smus; did you mean 'sums'\\?"):
        read_status("smus", cluster, reader, fleet.clock.wall_ms())


def test_with_every_worker_dead_it_says_so_and_how_far_they_were() -> None:
    """That is when it is asked most."""
    fleet = Fleet.at_rest("a")
    fleet.kill(fleet.nodes[0])
    fleet.sums.driver.send(fleet.sums.numbers, "k1", 5)
    missed(fleet)
    found = look(fleet)
    assert phases(found) == {TaskPhase.UNOWNED}
    assert found.workers == []
    assert found.problems[0].text == "no worker of sums is alive"
    assert "pipeline worker MODULE:APP;" in found.problems[0].hint
    assert "runbooks/worker-down.md" in found.problems[0].hint
    assert sum(status.lag for status in found.tasks) == 1
    assert {status.worker for status in found.tasks} == {"a"}


def test_tasks_of_a_killed_worker_are_shown_as_without_an_owner_until_they_are_taken() -> None:
    """What the seconds of a take-over look like."""
    fleet = Fleet.at_rest("a", "b")
    fleet.kill(fleet.nodes[0])
    missed(fleet)
    fleet.nodes[1].worker.step()  # it is alive, and has not looked yet
    found = look(fleet)
    assert [status.phase for status in found.tasks].count(TaskPhase.UNOWNED) == 2
    assert "2 of 4 tasks have no worker" in found.problems[0].text
    fleet.settle()
    assert look(fleet).problems == []


def test_a_failed_task_is_shown_with_its_reason_and_what_helps() -> None:
    """The reason is in the log of one of many workers; here it is for everybody."""
    fleet = Fleet.at_rest("a", "b")
    fleet.sums.driver.send_raw(fleet.sums.numbers, b"k1", b"no number", partition=2)
    fleet.run(5.0)
    found = look(fleet)
    assert [status.phase for status in found.tasks].count(TaskPhase.FAILED) == 1
    (problem,) = found.problems
    assert "task sums/main/2 failed on worker" in problem.text
    assert "numbers[2] offset" in problem.text
    assert "runbooks/poison-record.md" in problem.hint


@pytest.mark.unverified
def test_tasks_whose_journal_was_deleted_are_shown_as_failed() -> None:
    """Without a journal, only the workers' notes show that the tasks existed and why they failed."""
    fleet = Fleet.at_rest("a", "b")
    fleet.broker.delete("sums.main.journal")
    for _ in range(int(2 * REST_S / TURN_S)):
        fleet.turn()
    assert all(node.ended for node in fleet.nodes)
    found = look(fleet)
    assert phases(found) == {TaskPhase.FAILED}
    assert len(found.tasks) == 4
    failures = [problem for problem in found.problems if "journal-lost.md" in problem.hint]
    assert len(failures) == 4
    assert failures[0].text.endswith("its journal sums.main.journal was deleted")


def test_a_task_that_is_behind_and_silent_is_a_problem_before_its_worker_is_missed() -> None:
    """For ten seconds a killed worker looks alive to Kafka; an operator sees that nothing comes."""
    fleet = Fleet.at_rest("a", "b")
    fleet.kill(fleet.nodes[0])
    fleet.send()
    fleet.run(6.0)
    (problem,) = look(fleet).problems
    assert "records are waiting, and nothing was committed for 5 s" in problem.text
    assert "worker a may be dead" in problem.hint


def test_the_marker_of_the_last_transaction_is_no_lag() -> None:
    """A load ends with a marker in each partition: a permanent lag of 1 would never look complete."""
    fleet = Fleet.at_rest("a")
    producer = MemoryProducers(fleet.broker).open("a load")
    producer.init()
    producer.begin()
    producer.send([Output("numbers", b"k1", b"1", 0)])
    producer.commit()
    fleet.settle()
    assert sum(status.lag for status in look(fleet).tasks) == 0


def test_a_task_that_could_not_be_restored_is_shown_with_its_reason() -> None:
    """It never was live there, so no release says why."""
    fleet = Fleet.at_rest("a")
    fleet.kill(fleet.nodes[0])
    task = TaskId("sums", "main", 1)
    stores = MemoryStores()
    stores.fail_next("open", ConfigError("no space left"), task=task)
    fleet.start("b", stores=stores)
    fleet.run(14.0)
    found = look(fleet)
    failed = [status for status in found.tasks if status.phase is TaskPhase.FAILED]
    assert [(status.task, status.worker, status.problem) for status in failed] == [
        (task, "b", "no space left")
    ]
    assert [status.phase for status in found.tasks].count(TaskPhase.LIVE) == 3


def test_a_task_on_its_way_shows_where_it_goes() -> None:
    """It is still live where it was."""
    fleet = Fleet.at_rest("a")
    fleet.start("b")
    seen = []
    for _ in range(200):
        fleet.turn()
        seen += [s for s in look(fleet).tasks if s.phase is TaskPhase.MOVING]
    assert {(status.worker, status.next_worker) for status in seen} == {("a", "b")}
    fleet.settle()
    assert phases(look(fleet)) == {TaskPhase.LIVE}

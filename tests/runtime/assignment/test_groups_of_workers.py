"""Workers that run some of an app's groups: who gets which tasks, and what waits."""

from __future__ import annotations

from collections import Counter

from pipeline import Context, Event
from pipeline.runtime.status import AppStatus, read_status
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.fleet import Fleet, Node
from tests.support.runtime.sums import Sums


def with_second_group(fleet: Fleet) -> Sums:
    """The fleet's app with a second group, which reads the same input."""
    sums = Sums(partitions=fleet.partitions)

    @sums.app.group("second").handler(sums.numbers)
    def look(_event: Event[str, int], _ctx: Context) -> None:
        """Nothing to do."""

    return sums


def tasks_by_group(node: Node) -> dict[str, int]:
    return dict(Counter(task.group for task in node.live))


def status(fleet: Fleet) -> AppStatus:
    return read_status(
        "sums", MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker), fleet.clock.wall_ms()
    )


def test_the_workers_that_run_a_group_share_its_tasks() -> None:
    """A worker that was started for one group must neither run nor hold up another one."""
    fleet = Fleet(partitions=12)
    sums = with_second_group(fleet)
    one, two, both = (
        fleet.start("a", sums=sums, groups=["main"]),
        fleet.start("b", sums=sums, groups=["second"]),
        fleet.start("c", sums=sums),
    )
    fleet.send()
    fleet.settle()
    assert tasks_by_group(one) == {"main": 6}
    assert tasks_by_group(two) == {"second": 6}
    assert tasks_by_group(both) == {"main": 6, "second": 6}
    assert not status(fleet).problems
    fleet.check_results()


def test_the_tasks_of_a_dead_worker_go_to_workers_that_run_their_group() -> None:
    """The other workers have room, but no code for them."""
    fleet = Fleet(partitions=12)
    sums = with_second_group(fleet)
    killed, other, heir = (
        fleet.start("a", sums=sums, groups=["main"]),
        fleet.start("b", sums=sums, groups=["second"]),
        fleet.start("c", sums=sums, groups=["main"]),
    )
    fleet.send()
    fleet.settle()
    fleet.kill(killed)
    fleet.send()
    fleet.run(15.0)
    fleet.settle()
    assert tasks_by_group(heir) == {"main": 12}
    assert tasks_by_group(other) == {"second": 12}
    fleet.check_results()


def test_a_group_that_no_live_worker_runs_waits_and_is_a_problem() -> None:
    """Each worker is healthy, so only the status of the app shows it."""
    fleet = Fleet(partitions=4)
    sums = with_second_group(fleet)
    fleet.start("a", sums=sums, groups=["main"])
    only = fleet.start("b", sums=sums, groups=["second"])
    fleet.send()
    fleet.settle()
    fleet.stop(only)
    fleet.run(2.0)
    (problem,) = status(fleet).problems
    assert (
        problem.text
        == "no live worker runs group second: sums/second/0, sums/second/1, sums/second/2, sums/second/3"
    )
    assert problem.hint.startswith("start one: pipeline worker MODULE:APP --group second")
    again = fleet.start("c", sums=sums, groups=["second"])
    fleet.settle()
    assert tasks_by_group(again) == {"second": 4}
    assert not status(fleet).problems
    fleet.check_results()


def test_a_version_with_a_new_group_shares_the_known_groups_at_once() -> None:
    """The rings of the known groups are equal, so nothing has to wait for the last old worker."""
    fleet = Fleet(partitions=12)
    fleet.start("a")
    fleet.start("b")
    fleet.send()
    fleet.settle()
    newer = fleet.start("c", sums=with_second_group(fleet))
    fleet.settle()
    assert tasks_by_group(newer) == {"main": 4, "second": 12}
    assert not newer.log_events("waiting_for_other_version")
    fleet.check_results()

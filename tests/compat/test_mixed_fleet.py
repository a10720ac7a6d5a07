"""Workers of an earlier build and of this build run one app side by side, as in a rolling upgrade and a rollback."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.support.checker import Checker, KafkaLog
from tests.support.compat.builds import Build, new_build
from tests.support.compat.fleet import Handoff, How, MixedFleet, Process
from tests.support.compat.fold import Stretch, check_sums, expected_main, expected_tallies, firsts
from tests.support.compat.recorded import sums_of

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

ROWS = 9_000
RATE = ("--rate", "100", "--batch", "20")


@pytest.mark.timeout(600)
def test_two_builds_share_one_app_exactly(sharing: Build, fleet: MixedFleet, tmp_path: Path) -> None:
    """A rolling upgrade must not stop the app, and must be reversible at each of its steps."""
    old, new = sharing, new_build(tmp_path)
    last = _hand_tasks_over(fleet, old, new)
    handoffs = set(fleet.handoffs())
    assert handoffs >= {Handoff(*way, how) for way in (("old", "new"), ("new", "old")) for how in How}

    fleet.wait(lambda: _handled(fleet) == sum(len(firsts(each)) for each in fleet.inputs()))
    fleet.stop(last)
    fleet.start("d", old, repaired=True)
    fleet.start("e", new, repaired=True)
    fleet.pipeline(new, "deadletters", "replay", fleet.program, "--max", "100")
    fleet.pipeline(old, "deadletters", "replay", fleet.program, "--max", "100")
    fleet.pipeline(new, "deadletters", "replay", fleet.program)
    _verify(fleet)
    fleet.stop_all()
    expected = expected_main(fleet.inputs())
    for worker, build in (("f", old), ("g", new)):  # each restores all tasks from the journals of both builds
        fleet.start(worker, build, repaired=True)
        fleet.wait_until_shared()
        fleet.stop_all()
        assert fleet.table("totals", worker, build) == expected.totals
        assert fleet.table("toggles", worker, build) == expected.toggles
    with closing(KafkaLog(fleet.servers, lambda topic: topic.startswith(fleet.app))) as log:
        Checker(log).check(settle_s=20.0)


@pytest.mark.timeout(600)
def test_workers_wait_for_those_of_another_ring_and_continue_exactly(
    old: Build, fleet: MixedFleet, tmp_path: Path
) -> None:
    """Two rings would give a task to two workers, which fence each other again and again."""
    new = new_build(tmp_path)
    load = fleet.load(old, ROWS // 3, "--rate", "300", "--batch", "20")
    a, b = fleet.start("a", old), fleet.start("b", old)
    fleet.wait_until_shared()
    c = fleet.start("c", new)
    fleet.wait(lambda: "waiting_for_other_version" in c.log.read_text())
    fleet.kill(a)
    fleet.stop(b)
    fleet.wait_until_shared()
    assert all(owner is c for owner in fleet.owners().values())
    fleet.wait(lambda: load.poll() is not None)
    assert load.returncode == 0, fleet.story()
    fleet.wait(lambda: _handled(fleet) == sum(len(firsts(each)) for each in fleet.inputs()))
    fleet.stop(c)
    fleet.start("d", new, repaired=True)
    fleet.pipeline(new, "deadletters", "replay", fleet.program)
    _verify(fleet, ROWS // 3)
    fleet.stop_all()
    assert fleet.table("totals", "d", new) == expected_main(fleet.inputs()).totals
    with closing(KafkaLog(fleet.servers, lambda topic: topic.startswith(fleet.app))) as log:
        Checker(log).check(settle_s=20.0)


def _hand_tasks_over(fleet: MixedFleet, old: Build, new: Build) -> Process:
    """Start, stop and kill workers of both builds while rows come in; the worker that has all tasks at the end."""
    load = fleet.load(old, ROWS, *RATE)
    a, b = fleet.start("a", old), fleet.start("b", old)
    fleet.wait_until_shared()
    c = fleet.start("c", new)  # the old ones release some of their tasks to it
    fleet.wait_until_shared()

    load.kill()
    fleet.kill(a)
    fleet.wait_until_shared()
    load = fleet.load(new, ROWS, *RATE)
    a = fleet.start("a", new)  # an upgrade on the same disk
    fleet.wait_until_shared()
    fleet.kill(c)
    c = fleet.start("c", old)  # a rollback on the same disk
    fleet.wait_until_shared()

    load.kill()
    fleet.stop(a)  # it releases its tasks to the old ones
    fleet.wait_until_shared()
    load = fleet.load(old, ROWS, *RATE)
    fleet.kill(b)
    b = fleet.start("b", new)  # an upgrade on the same disk
    fleet.wait_until_shared()
    fleet.kill(c)  # the new one takes all tasks over
    fleet.wait_until_shared()
    d = fleet.start("d", old)
    fleet.wait_until_shared()
    fleet.kill(b)  # the old one takes all tasks over
    fleet.wait_until_shared()
    for build in (new, old):  # without a peer that sees its end, each acquires its own tasks again
        fleet.kill(d)
        d = fleet.start("d", build)
        fleet.wait_until_shared()

    load.kill()
    load = fleet.load(new, ROWS)
    fleet.wait(lambda: load.poll() is not None)
    assert load.returncode == 0, fleet.story()
    return d


def _handled(fleet: MixedFleet) -> int:
    """Inputs of the group `main` that have a sum or a dead letter."""
    return fleet.topics.count(f"{fleet.app}-sums") + fleet.topics.count(f"{fleet.app}.main.dead-letters")


def _verify(fleet: MixedFleet, rows: int = ROWS) -> None:
    """Outputs, and the rows of sinks, once everything is handled."""
    inputs = fleet.inputs()
    assert sorted(each.n for partition in inputs for each in partition) == list(range(rows))
    sums = sum(len(firsts(each)) for each in inputs)
    fleet.wait(lambda: fleet.topics.count(f"{fleet.app}-sums") >= sums)
    fleet.wait(lambda: len(fleet.rows("history")) >= sums)
    outputs = fleet.topics.committed(f"{fleet.app}-sums")
    assert check_sums(inputs, outputs) == []
    assert Counter(fleet.rows("history")) == Counter(sums_of(outputs))
    stretches = [Stretch(n, 3, 0, each[-1].offset + 1) for n, each in enumerate(inputs) if each]
    counts: dict[str, list[int]] = defaultdict(list)
    for record in (
        record for partition in fleet.topics.committed(f"{fleet.app}-counts") for record in partition
    ):
        counts[(record.key or b"").decode()].append(msgspec.json.decode(record.value or b""))
    assert counts == expected_tallies(inputs, stretches).outputs

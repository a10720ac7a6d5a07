"""A worker process on a real Kafka, killed at every point of the protocol: results stay exact.

After each kill, without a worker, the outputs must match the journal's end and each table its own position. After a
worker has recovered, outputs and tables must match all inputs (tests/support/kafka/reference.py).
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.ports import Step
from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import Workbench
from tests.support.kafka.kill_at import DURING_APPLY
from tests.support.kafka.proxy import Api, Proxy
from tests.support.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS, SINK_STEPS

pytestmark = pytest.mark.kafka

# INVALID_PRODUCER_EPOCH and PRODUCER_FENCED.
FENCED = {47, 90}
# With a checkpoint store: tests/kafka/test_checkpoint_kills.py.
ELSEWHERE = {*CHECKPOINT_STEPS, *DOWNLOAD_STEPS, *SINK_STEPS}
POINTS = [*(step.name for step in Step if step not in ELSEWHERE), DURING_APPLY]
# groups, partitions, tasks of each group
TASKS = {"one-task": (("main",), 1, 1), "four-tasks-of-several-partitions": (("main", "counting"), 5, 2)}


class Phase(Enum):
    """The phase of a worker in which a point is reached."""

    GENESIS = "a group's first start"
    RESTORE = "each start"
    REPLAY = "a start with a state that is behind"
    COMMIT = "each commit, and in each start the acquire's"
    RETIRE = "each commit while live"


PHASES = {
    "BEFORE_GENESIS": Phase.GENESIS,
    "DURING_GENESIS": Phase.GENESIS,
    "AFTER_GENESIS": Phase.GENESIS,
    "AFTER_FENCE": Phase.RESTORE,
    "AFTER_END": Phase.RESTORE,
    "AFTER_CHOICE": Phase.RESTORE,
    "DURING_REPLAY": Phase.REPLAY,
    "AFTER_REPLAY": Phase.RESTORE,
    "BEFORE_ACQUIRE": Phase.RESTORE,
    "AFTER_ACQUIRE": Phase.RESTORE,
    "BEFORE_BEGIN": Phase.COMMIT,
    "AFTER_OUTPUTS": Phase.COMMIT,
    "AFTER_ENTRY": Phase.COMMIT,
    "AFTER_FLUSH": Phase.COMMIT,
    "DURING_COMMIT": Phase.COMMIT,
    "AFTER_COMMIT": Phase.COMMIT,
    "BEFORE_APPLY": Phase.COMMIT,
    DURING_APPLY: Phase.COMMIT,
    "AFTER_APPLY": Phase.COMMIT,
    "BEFORE_RETIRE": Phase.RETIRE,
}


@pytest.fixture
def bench(several: Workbench) -> Workbench:
    """Tasks of several partitions: a kill concerns all of them."""
    return several


@pytest.fixture(params=TASKS)
def tasks_bench(
    request: pytest.FixtureRequest, kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> Iterator[Workbench]:
    """A workbench for an app with one task, then with several."""
    groups, partitions, tasks = TASKS[request.param]
    name = unique_name[-40:].strip("-")
    bench = Workbench(
        kafka.bootstrap_servers, name, tmp_path, groups=groups, partitions=partitions, tasks=tasks
    )
    yield bench
    bench.close()


def test_every_point_has_its_phase() -> None:
    """A new step must also get a kill test, and this test fails until its phase is defined."""
    assert sorted(PHASES) == sorted(POINTS)


@pytest.mark.kills
def test_kills_at_random_moments_leave_outputs_and_tables_exact(bench: Workbench) -> None:
    """Exactly-once results must survive several crashes at any time on the same state."""
    chance = random.Random(7)
    for _ in range(3):
        bench.kill_at_random(chance, 3_000, within=2_500)
        bench.reference.check_at_rest(bench.state_dir)
    _finish(bench)


@pytest.mark.timeout(400)
def test_kills_at_each_step_of_a_commit_on_one_state_leave_outputs_and_tables_exact(
    bench: Workbench,
) -> None:
    """Each kill leaves another combination of transaction, entry and state, from which the next worker recovers."""
    bench.send(200)
    for point in _in(Phase.COMMIT, Phase.RETIRE):
        bench.kill_while_running(point, 1)
    _finish(bench)


@pytest.mark.kills
@pytest.mark.timeout(400)
def test_kills_at_each_step_of_a_release_on_one_state_leave_outputs_and_tables_exact(
    bench: Workbench,
) -> None:
    """A deployment may kill a slow stop when some tasks are released, one partly, and others not."""
    bench.send(200)
    for point in _in(Phase.COMMIT, Phase.RETIRE):
        bench.send(40)
        bench.kill_while_stopping(point, 2)
    _finish(bench)


@pytest.mark.kills
def test_kills_at_each_step_of_a_start_on_one_state_leave_outputs_and_tables_exact(bench: Workbench) -> None:
    """A worker may be killed again while it recovers from a kill, with a state behind its journal."""
    bench.send(200)
    for point in _in(Phase.GENESIS):
        bench.kill_while_starting(point, 1)
    behind = _fall_behind(bench)
    for point in _in(Phase.RESTORE, Phase.REPLAY):
        behind()
        bench.send(40)
        bench.kill_while_starting(point, 1)
    _finish(bench)


@pytest.mark.kills
def test_kills_while_a_commit_request_is_on_its_way_leave_outputs_and_tables_exact(
    bench: Workbench, proxy: Proxy
) -> None:
    """A request that arrives after the crash must commit a complete transaction, or nothing after a fence."""
    bench.send(100)
    task = TaskId(bench.prefix, "main", 0)
    for arrives in ("never", "before the next start", "after the next start"):
        worker = bench.worker("--kafka", proxy.servers, "--commit-interval-ms", "20")
        bench.catch_up(worker)
        request = proxy.hold(Api.END_TXN, task.transactional_id.encode())
        bench.send(40)
        request.wait_until_fired()
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
        before = bench.reference.check_at_rest(bench.state_dir)[task]
        if arrives == "before the next start":
            request.release()
            assert request.answer() == 0
            assert bench.reference.check_at_rest(bench.state_dir)[task] > before
        elif arrives == "after the next start":
            successor = bench.worker()
            bench.catch_up(successor)
            request.release()
            assert request.answer() in FENCED
            assert bench.stop(successor) == 0, bench.log.read_text()
            bench.reference.check_at_rest(bench.state_dir)
    _finish(bench)


@pytest.mark.kills
@pytest.mark.parametrize("point", POINTS)
def test_three_kills_in_a_row_at_each_step_leave_outputs_and_tables_exact(
    tasks_bench: Workbench, point: str
) -> None:
    """A worker must also recover if it is killed at the step where its predecessor was killed."""
    bench, phase = tasks_bench, PHASES[point]
    bench.send(200)
    if phase is Phase.GENESIS:
        _kill_at_genesis(bench, point)
    elif phase in {Phase.RESTORE, Phase.REPLAY}:
        _kill_at_restore(bench, point)
    else:
        for nth in (1, 2, 3):
            bench.kill_while_running(point, nth)
        if phase is Phase.COMMIT:
            for _ in range(3):
                bench.send(40)
                bench.kill_while_starting(point, 1)
    _finish(bench)


def _in(*phases: Phase) -> list[str]:
    return [point for point, phase in PHASES.items() if phase in phases]


def _finish(bench: Workbench) -> None:
    """Run a worker to the end, with new input, so that it does not end before it is live."""
    bench.send(500)
    bench.finish()


def _kill_at_genesis(bench: Workbench, point: str) -> None:
    """Kill at the genesis. Each group has one genesis: a kill after it can happen once, a kill before it repeatedly."""
    groups = len(bench.groups)
    for nth in [1] * groups if point == "AFTER_GENESIS" else [1, 1, groups]:
        bench.kill_while_starting(point, nth)
        bench.send(40)


def _kill_at_restore(bench: Workbench, point: str) -> None:
    """Kill during restores: with a state behind the journal, an empty disk, and the disk of the previous kill."""
    behind = _fall_behind(bench)
    for prepare in (behind, lambda: shutil.rmtree(bench.state_dir), lambda: None):
        prepare()
        bench.send(40)
        bench.kill_while_starting(point, 1)


def _fall_behind(bench: Workbench) -> Callable[[], None]:
    """Extend the journal. Returns a function that restores the disk from before."""
    copy = bench.state_dir.with_name("behind")
    worker = bench.worker("--commit-interval-ms", "5")
    bench.catch_up(worker)
    assert bench.stop(worker) == 0, bench.log.read_text()
    shutil.copytree(bench.state_dir, copy)
    worker = bench.worker("--commit-interval-ms", "5")
    for _ in range(8):
        bench.send(40)
        bench.catch_up(worker)
    worker.kill()
    worker.wait()

    def bring_back() -> None:
        shutil.rmtree(bench.state_dir)
        shutil.copytree(copy, bench.state_dir)

    return bring_back

"""The probes: a restart for a loop that stands still, and for nothing else."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.core.membership import TaskRole
from pipeline.core.names import TaskId
from pipeline.http.port import Liveness, readiness
from pipeline.runtime.metrics.figures import TaskFigures, WorkerFigures
from pipeline.testing import ManualClock

LIMIT_S = 10.0
TASKS = [TaskId("shop", "main", number) for number in range(3)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def liveness(clock: ManualClock) -> Liveness:
    return Liveness(LIMIT_S, clock.monotonic_s)


def test_a_loop_that_advances_is_live(clock: ManualClock, liveness: Liveness) -> None:
    """However rarely a probe comes."""
    for turn in range(5):
        assert liveness.check(turn).status == 200
        clock.advance(10 * LIMIT_S)


def test_a_loop_that_stands_still_is_live_until_the_limit(clock: ManualClock, liveness: Liveness) -> None:
    """A handler may take as long as its watchdog allows."""
    liveness.check("here")
    clock.advance(LIMIT_S)
    assert liveness.check("here").status == 200
    clock.advance(0.1)
    stuck = liveness.check("here")
    assert stuck.status == 503
    assert "runbooks/handler-hangs.md" in msgspec.json.decode(stuck.body)["hint"]
    assert liveness.check("further").status == 200


def test_a_worker_that_starts_or_stops_is_live(clock: ManualClock, liveness: Liveness) -> None:
    """Both have time-outs of their own, and a start may wait for Kafka for a minute."""
    for _ in range(3):
        assert liveness.check(None).status == 200
        clock.advance(10 * LIMIT_S)


def worker(roles: dict[TaskId, TaskRole], assigned: list[TaskId] | None) -> WorkerFigures:
    tasks = {task: TaskFigures({}, role) for task, role in roles.items()}
    return WorkerFigures("shop", tasks, assigned, 1, 0.0)


def test_a_worker_is_ready_when_its_tasks_are_live() -> None:
    """Tasks of other workers, and copies of them, do not matter."""
    roles = {TASKS[0]: TaskRole.LIVE, TASKS[1]: TaskRole.LIVE, TASKS[2]: TaskRole.STANDBY}
    answer = readiness(worker(roles, TASKS[:2]), stopping=False)
    assert answer.status == 200
    assert msgspec.json.decode(answer.body) == {"ready": True, "tasks": 2}
    assert readiness(worker({}, []), stopping=False).status == 200  # more workers than tasks


@pytest.mark.parametrize(
    "role", [TaskRole.RESTORING, TaskRole.FAILED, TaskRole.STANDBY, TaskRole.LEAVING, None]
)
def test_a_worker_with_a_task_that_is_not_live_is_not_ready(role: TaskRole | None) -> None:
    """A rolling update would otherwise stop the next worker while this one still restores."""
    roles = {TASKS[0]: TaskRole.LIVE} | ({TASKS[1]: role} if role is not None else {})
    answer = readiness(worker(roles, TASKS[:2]), stopping=False)
    assert answer.status == 503
    said = msgspec.json.decode(answer.body)
    assert said["error"] == "1 of 2 assigned tasks is not live here"
    assert list(said["tasks"]) == ["shop/main/1"]


def test_a_worker_that_knows_no_assignment_is_not_ready() -> None:
    """Before it has heard of the others, it cannot know which tasks are its own."""
    assert readiness(None, stopping=False).status == 503
    assert readiness(worker({}, None), stopping=False).status == 503
    assert readiness(worker({TASKS[0]: TaskRole.LIVE}, TASKS[:1]), stopping=True).status == 503

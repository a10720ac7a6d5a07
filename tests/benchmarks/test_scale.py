"""`make bench-scale` fails when a simulated fleet breaks a rule, and counts what an event moves."""

from __future__ import annotations

import pytest

from benchmarks import BenchmarkError
from benchmarks.scale import Fleet, commits_per_s, main
from pipeline.config import WorkerSettings
from pipeline.core.membership import TaskRole
from pipeline.core.notes import Owner

WORKERS, TASKS = 6, 40


@pytest.fixture
def fleet() -> Fleet:
    """Six workers that share forty tasks."""
    made = Fleet.of(TASKS)

    def start() -> None:
        for number in range(WORKERS):
            made.join(f"w{number}")

    made.run("start", start, 0.0)
    return made


def test_only_the_tasks_of_a_lost_worker_move(fleet: Fleet) -> None:
    """Each move costs a restore."""
    own = len(fleet.places["w3"])
    outcome = fleet.run("loss", lambda: fleet.lose("w3"), 0.0)
    assert outcome.moved == outcome.least == own


def test_a_worker_that_joins_gets_its_share_by_handoff(fleet: Fleet) -> None:
    """The owner keeps a task until the other one is ready, so this takes more rounds than a loss."""
    outcome = fleet.run("join", lambda: fleet.join("w9"), 0.0)
    assert outcome.moved == outcome.least == len(fleet.places["w9"]) == TASKS // (WORKERS + 1)
    assert outcome.rounds > fleet.run("loss", lambda: fleet.lose("w0"), 0.0).rounds


def test_a_restarted_worker_keeps_its_tasks(fleet: Fleet) -> None:
    """Its disk has their states."""
    assert fleet.run("restart", lambda: fleet.join("w1"), 0.0).moved == 0


def test_a_task_that_runs_twice_is_an_error(fleet: Fleet) -> None:
    """The simulation would otherwise praise a ring that is wrong."""
    task = next(iter(fleet.places["w0"]))
    fleet.places["w1"][task] = TaskRole.LIVE
    owner = Owner(fleet.owners[task].seq + 1, "w1", fleet.members["w1"].process)
    with pytest.raises(BenchmarkError, match="at once"):
        fleet._take("twice", task, owner)


def test_workers_that_disagree_are_an_error(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rosters must give equal assignments in every process."""
    answers = iter(range(1000))

    def assign(tasks: list[str], weights: dict[str, int], *_: object) -> dict[str, str]:
        shift, workers = next(answers), sorted(weights)
        return {task: workers[(number + shift) % len(workers)] for number, task in enumerate(sorted(tasks))}

    monkeypatch.setattr("pipeline.core.membership.assign", assign)
    with pytest.raises(BenchmarkError, match="computes another assignment"):
        fleet.run("disagreement", lambda: fleet.lose("w2"), 0.0)


@pytest.mark.parametrize("workers", [1, 1000])
def test_commits_stay_below_their_limit(workers: int) -> None:
    """A fleet of any size must not commit more often than its settings allow."""
    settings = WorkerSettings()
    busy = commits_per_s(30, 1000.0, workers, settings)
    assert 10 * 30 * 0.5 <= busy <= settings.max_commits_per_s * 1.05


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Its output is copied into the documentation."""
    assert main(["5", "20"]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("all start", "one joins", "MB/s", "cores of the brokers"))

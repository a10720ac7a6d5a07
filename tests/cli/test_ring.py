"""`pipeline ring simulate`: figures that an operator plans with."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble


def _simulate(*arguments: str) -> dict[str, dict[str, int]]:
    done = CliRunner().invoke(assemble(), ["ring", "simulate", "--json", *arguments])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["algorithm"]: row for row in rows}


@pytest.mark.parametrize(
    ("workers", "tasks", "join", "leave"), [(3, 12, 1, 0), (10, 1_000, 0, 3), (20, 500, 4, 4)]
)
def test_the_ring_is_level_and_moves_what_must_move(workers: int, tasks: int, join: int, leave: int) -> None:
    """At most a tenth more than what must move, where the other ways move most of all or lie uneven."""
    arguments = (
        f"--workers={workers}",
        f"--tasks={tasks}",
        f"--join={join}",
        f"--leave={leave}",
    )
    ways = _simulate(*arguments)
    ring = ways["this ring"]
    assert ring["max_load"] - ring["min_load"] <= 1
    assert ring["moved"] <= 1.1 * ring["must_move"]
    assert ways["round-robin"]["moved"] > 2 * ring["moved"]
    assert ways["plain consistent hashing"]["max_load"] > ring["max_load"]


def test_at_least_one_worker_must_remain() -> None:
    """There must be a worker to show tasks for."""
    done = CliRunner().invoke(assemble(), ["ring", "simulate", "--workers=2", "--tasks=4", "--leave=2"])
    assert done.exit_code == 2
    assert "at least one worker must remain" in done.output

"""Producers that are closed while their tasks are idle, on a real Kafka: kills and take-overs."""

from __future__ import annotations

import signal

import pytest

from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.runtime.steps import COMMIT_STEPS

pytestmark = [pytest.mark.kafka, pytest.mark.kills]


@pytest.fixture
def resting(several: Workbench) -> Workbench:
    """A bench whose workers close their producers a moment after each commit."""
    several.environment["KILL_RESTING"] = "yes"
    return several


def test_kills_in_commits_that_opened_a_producer_again_leave_all_exact(resting: Workbench) -> None:
    """A new client has fenced the id, so nothing of an earlier client can be left."""
    resting.send(200)
    for step in COMMIT_STEPS:
        resting.kill_while_running(step.name, 1)
    assert resting.log.read_text().count("idle_producers_closed") >= len(COMMIT_STEPS)
    resting.finish()


def test_a_task_that_was_taken_while_its_producer_was_closed_is_not_taken_back(resting: Workbench) -> None:
    """No open producer is fenced, so nothing tells the stopped worker: it must find the entry of its successor."""
    resting.send(200)
    zombie = resting.stopped_while_resting()
    resting.state_dir = resting.state_dir.with_name("of-the-successor")
    successor = resting.worker("--worker-id", "killed", "--commit-interval-ms", "20")
    resting.send(100)
    resting.catch_up(successor)
    zombie.send_signal(signal.SIGCONT)
    resting.send(100)
    zombie.wait(DEADLINE_S)
    resting.send(100)
    resting.catch_up(successor)
    assert resting.stop(successor) == 0, resting.log.read_text()
    resting.check()
    resting.verify_at_rest()

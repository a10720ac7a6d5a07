"""Producers that are closed while their tasks are idle, on a real Kafka: kills and take-overs."""

from __future__ import annotations

import pytest

from tests.support.kafka.harness import Workbench
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
    resting.outlive(zombie)
    resting.verify_at_rest()

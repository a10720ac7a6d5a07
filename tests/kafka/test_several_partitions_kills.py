"""Tasks of several partitions on a real Kafka: what concerns one partition, and owners that come back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.kafka.harness import Workbench
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

APP = "tests.support.kafka.sums:app"
RESET = 3  # a partition of task 1, which also has partition 1


@pytest.mark.parametrize("point", ["BEFORE_BEGIN", "AFTER_ENTRY", "AFTER_FLUSH", "DURING_COMMIT"])
def test_an_owner_that_was_stopped_past_its_take_over_commits_nothing(several: Workbench, point: str) -> None:
    """It continues within its transaction, whose partitions the fence of its successor has aborted: one chain."""
    zombie = several.stopped_while_running(point)
    several.outlive(zombie)
    several.verify_at_rest()


def test_kills_in_the_restore_of_a_partial_reset_leave_all_partitions_exact(several: Workbench) -> None:
    """The rows of one partition are deleted, and its records are counted again; those of the others are kept."""
    several.send(200)
    worker = several.worker()
    several.catch_up(worker)
    assert several.stop(worker) == 0, several.log.read_text()
    before = several.state_dir.with_name("before")
    shutil.copytree(several.state_dir, before)
    done = several.command(
        "reset", APP, "--kafka", several.servers, "--group", "counting", "--partition", str(RESET), "--yes"
    )
    assert done.returncode == 0, done.stderr
    for point in (
        "DURING_REPLAY",
        "AFTER_REPLAY",
        "BEFORE_ACQUIRE",
        "AFTER_ENTRY",
        "AFTER_COMMIT",
        "AFTER_APPLY",
    ):
        several.kill_while_starting(point, 1)
    shutil.rmtree(several.state_dir)
    shutil.copytree(before, several.state_dir)
    several.kill_while_starting("BEFORE_ACQUIRE", 1)
    several.send(100)
    several.finish()


def test_kills_while_one_partition_retries_and_others_commit_leave_all_exact(
    several: Workbench, tmp_path: Path
) -> None:
    """Each commit contains the position of the retried record, and later ones of the other partitions."""
    fails = tmp_path / "fails"
    fails.touch()
    several.environment["SUMS_FAILS"] = str(fails)
    several.send(200)
    for point in (
        "AFTER_ENTRY",
        "AFTER_FLUSH",
        "DURING_COMMIT",
        "AFTER_COMMIT",
        "BEFORE_APPLY",
        "AFTER_APPLY",
    ):
        several.killed_among_retries(point)
    worker = several.worker()
    several.send(100)
    wait_until(lambda: "record_retried" in several.log.read_text(), several.log.read_text)
    fails.unlink()
    several.catch_up(worker)
    assert several.stop(worker) == 0, several.log.read_text()
    several.check()
    several.verify_at_rest()

"""`pipeline drill undo` after the driller was killed: what the drill changed is restored."""

from __future__ import annotations

import pytest

from pipeline.drills.workers import holder_of
from tests.support.drills.live import LiveApp

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

# Longer than a busy machine needs to end the drill. No test waits for it.
FREEZE = ("run", "freeze-worker", "--worker", "a", "--seconds", "150", "--yes")


def test_a_frozen_worker_continues_after_the_driller_was_killed(live: LiveApp) -> None:
    """Otherwise a drill whose terminal is closed would be an incident."""
    worker = holder_of(live.place("a"))
    assert worker is not None
    driller = live.start(*FREEZE)
    live.wait_for(lambda: worker.stopped or driller.poll() is not None)
    driller.kill()
    said, _ = driller.communicate()
    assert worker.stopped, said
    refused = live.run("run", "kill-worker", "--yes", code=1)
    assert "refused (drill-open)" in refused
    assert "pipeline drill undo" in refused
    assert "continued" in live.run("undo")
    live.wait_for(lambda: worker.alive and not worker.stopped)
    assert live.intent() is None
    assert "nothing to restore" in live.run("undo")
    live.finish()


def test_a_worker_whose_disk_was_taken_is_back_after_the_driller_was_killed(live: LiveApp) -> None:
    """The worker is started again with its command, on its own state directory."""
    worker = holder_of(live.place("b"))
    assert worker is not None
    driller = live.start("run", "lose-disk", "--worker", "b", "--yes")
    live.wait_for(lambda: not live.place("b").exists() or driller.poll() is not None)
    driller.kill()
    driller.communicate()
    live.run("undo")
    assert holder_of(live.place("b")) is not None
    assert not list(live.place("b").parent.glob("*.drill-*"))
    live.finish()


def test_an_abort_condition_ends_the_drill_and_restores(live: LiveApp) -> None:
    """The operator's bound must hold while the fault lasts, and the worker must be back."""
    worker = holder_of(live.place("a"))
    assert worker is not None
    said = live.run(*FREEZE, "--abort-if", "elapsed_s > 1", code=6)
    assert "aborted: elapsed_s > 1" in said
    report = live.report()
    assert report.verdict == "aborted"
    assert report.abort_fired.startswith("elapsed_s > 1 (")
    assert [each.result for each in report.restored] == ["continued"]
    assert not worker.stopped
    driller = live.start(*FREEZE)
    live.wait_for(lambda: worker.stopped or driller.poll() is not None)
    assert "asked freeze-worker-" in live.run("abort")
    said, _ = driller.communicate(timeout=170)
    assert driller.returncode == 6, said
    assert live.intent() is None
    live.finish()

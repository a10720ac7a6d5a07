"""A whole drill without a Kafka: what remains of it if it fails in the middle."""

from __future__ import annotations

import errno
from pathlib import Path

from pipeline.drills.drill import Drill, Options, Plan, Run, Scene
from pipeline.drills.intent import IntentFile, RemovePath
from tests.support.drills.scenes import APP, runner_of, settings_of
from tests.support.runtime.fleet import Fleet


class _Denied(Drill):
    """Creates a file, and may not make its second change."""

    name = "denied"
    summary = "a drill whose second change fails"
    hypothesis = "It holds."

    def __init__(self, made: Path) -> None:
        self._made = made

    def plan(self, scene: Scene) -> Plan:
        del scene
        return Plan(str(self._made), [], "", [], 0.0)

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        run.will_undo(RemovePath(str(self._made)))
        self._made.touch()
        raise OSError(errno.EBUSY, "Device or resource busy", "/state/shop")


def test_a_change_that_the_system_denies_is_undone(tmp_path: Path) -> None:
    """Otherwise a worker would stay stopped until an operator runs pipeline drill undo."""
    made = tmp_path / "made"
    runner = runner_of(Fleet.at_rest("a", "b"), settings_of(tmp_path))
    report = runner.run(_Denied(made), Options(), lambda _: None)
    assert report.verdict == "deviated"
    assert report.deviations == ["[Errno 16] Device or resource busy: '/state/shop'"]
    assert [each.result for each in report.restored] == ["deleted"]
    assert not made.exists()
    assert IntentFile(tmp_path, APP).read() is None

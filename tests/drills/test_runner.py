"""A whole drill without a Kafka: what remains of it if it fails in the middle."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline.cli.drill import _Place, _run
from pipeline.drills.drill import Drill, Plan, Run
from pipeline.drills.intent import IntentFile, RemovePath
from pipeline.drills.scene import Options, Scene
from pipeline.errors import InputError
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


@pytest.mark.parametrize("place", ["drills", "drills/reports"])
def test_a_directory_that_cannot_be_used_is_found_at_once(tmp_path: Path, place: str) -> None:
    """After the fault, its report would be lost; after the steady state, the operator would have waited."""
    directory = tmp_path / "drills"
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    settings, said = settings_of(directory), list[str]()
    runner = runner_of(Fleet.at_rest("a", "b"), settings, said.append)
    with pytest.raises(InputError, match=f"cannot use the directory of drills {tmp_path / place}"):
        _run(_Place(APP, None, settings, runner), _Denied(tmp_path / "made"), Options(), yes=True)
    assert said == []


def test_an_earlier_report_is_read_before_the_fault(tmp_path: Path) -> None:
    """The comparison with it is part of the new report, which would be lost."""
    settings, said = settings_of(tmp_path), list[str]()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "kill-worker-1.json").write_text("{")
    runner = runner_of(Fleet.at_rest("a", "b"), settings, said.append)
    with pytest.raises(InputError, match="is not a report of a drill"):
        _run(_Place(APP, None, settings, runner), _Denied(tmp_path / "made"), Options(), yes=True)
    assert said == []

"""The steps of a network drill: what is noted before its fault, how long the fault may last, and what is its effect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.journal_format import EntryKind
from pipeline.drills.drill import Run, UnrecoveredError
from pipeline.drills.intent import EndNetworkFault, IntentFile, Step
from pipeline.drills.judge import SeenEntry
from pipeline.drills.kafka_drills import SlowNetwork
from pipeline.drills.network_faults import NetworkFault, ProxyPlace
from pipeline.drills.scene import Options
from tests.support.drills.proxied import Proxied, behind_proxy
from tests.support.drills.scenes import APP, observer_of, scene_of, settings_of
from tests.support.runtime.fleet import Fleet

_SECONDS = 2.0
_TIMEOUT_S = 5.0


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    with behind_proxy(tmp_path) as found:
        yield found


@pytest.fixture
def run(tmp_path: Path, proxied: Proxied) -> Run:
    """A drill on worker `a`, which is behind the proxy."""
    del proxied
    fleet = Fleet.at_rest("a", "b")
    settings = settings_of(tmp_path, timeout_s=_TIMEOUT_S)
    scene = scene_of(fleet, settings, local=("a",), options=Options(seconds=_SECONDS))
    intent = IntentFile(tmp_path, APP)
    intent.begin(intent.new("slow-network-1", "slow-network", APP, "kafka:9092", fleet.clock))
    tasks = scene.tasks_of("a")
    return Run(scene, observer_of(fleet), intent, lambda _: None, (), tasks)


def _perform(run: Run) -> None:
    drill = SlowNetwork()
    drill.perform(run, drill.plan(run.scene))


def _steps(run: Run) -> tuple[Step, ...]:
    intent = run.intent.read()
    assert intent is not None
    return intent.steps


def test_a_fault_is_noted_before_it_begins_and_has_a_deadline(
    run: Run, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driller may be killed at any point, and its host may be the one that is cut off."""
    proxied.write(fault="slow", affected=3)
    began: list[tuple[tuple[Step, ...], NetworkFault]] = []
    begin = ProxyPlace.begin

    def noting(place: ProxyPlace, fault: NetworkFault) -> None:
        began.append((_steps(run), fault))
        begin(place, fault)

    monkeypatch.setattr(ProxyPlace, "begin", noting)
    began_ms = run.clock.wall_ms()
    _perform(run)
    ((steps, fault),) = began
    assert steps == (EndNetworkFault(str(proxied.place.path)),)
    assert fault == NetworkFault("slow", [os.getpid()], began_ms + 1000 * int(_SECONDS + _TIMEOUT_S), 150)
    assert run.clock.wall_ms() - began_ms >= 1000 * _SECONDS
    assert not proxied.place.fault_file.exists()
    assert any("has delayed a request or an answer 3 times" in each.text for each in run.evidence)
    assert run.deviations == []


@pytest.mark.parametrize("note", [{}, {"affected": 7}, {"fault": "slow"}])
def test_a_fault_without_an_effect_is_a_deviation(
    run: Run, proxied: Proxied, note: dict[str, object]
) -> None:
    """A drill that has disturbed nothing would hold. The number is that of the last fault."""
    proxied.write(**note)
    with pytest.raises(UnrecoveredError, match="the effect of the fault did not happen"):
        _perform(run)
    assert _steps(run) == (EndNetworkFault(str(proxied.place.path)),)  # the runner undoes it


def test_a_task_that_moves_in_a_slow_network_is_a_deviation(
    run: Run, proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delay is no reason to lose a task."""
    proxied.write(fault="slow", affected=3)
    task = run.predicted[0]
    moved = SeenEntry(EntryKind.ACQUIRE, 9, "b", {}, run.clock.wall_ms() + 1, 9, b"")
    entries = run.observer.entries
    monkeypatch.setattr(
        run.observer,
        "entries",
        lambda each, since_ms=0: (
            [moved] if each == task and moved.wall_ms >= since_ms else entries(each, since_ms)
        ),
    )
    _perform(run)
    assert run.deviations == [f"tasks were acquired again: main/{task.number}"]

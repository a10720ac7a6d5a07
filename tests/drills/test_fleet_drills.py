"""What the drills on the set of workers measure, without a Kafka."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pipeline.drills.drill import Run
from pipeline.drills.fleet_drills import stop_worker
from pipeline.drills.intent import IntentFile
from pipeline.drills.workers import LocalWorker
from pipeline.testing import ManualClock
from tests.support.drills.scenes import APP, observer_of, scene_of, settings_of
from tests.support.runtime.fleet import Fleet


class _SlowEnd:
    """A process that ends three seconds after SIGTERM."""

    label = "process 7"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._end_ms: int | None = None

    def send(self, number: signal.Signals) -> bool:
        assert number is signal.SIGTERM
        self._end_ms = self._clock.wall_ms() + 3_000
        return True

    @property
    def alive(self) -> bool:
        return self._end_ms is None or self._clock.wall_ms() < self._end_ms


def test_a_stop_is_timed_from_its_signal(tmp_path: Path) -> None:
    """Others take over the tasks before the process has ended; a later time made such a drill wait in vain."""
    fleet = Fleet.at_rest("a", "b")
    scene = scene_of(fleet, settings_of(tmp_path))
    worker = replace(cast(LocalWorker, scene.workers[0]), process=cast(Any, _SlowEnd(fleet.clock)))
    run = Run(scene, observer_of(fleet), IntentFile(tmp_path, APP), lambda _: None, [], [])
    before_ms = fleet.clock.wall_ms()
    assert stop_worker(run, worker) == before_ms
    assert fleet.clock.wall_ms() >= before_ms + 3_000
    assert [each.text for each in run.evidence] == ["process 7 of worker a has ended"]

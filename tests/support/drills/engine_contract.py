"""What drills need of a container engine: `EngineContract`, for the fake engine and for the real podman."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import PurePosixPath

from pipeline.drills.containers import ContainerWorker, move_in_volume
from pipeline.drills.intent import ContinueContainer, MoveBackInVolume, StartContainer
from pipeline.ports import SystemClock

__all__ = ["check_engine"]

CLOCK = SystemClock()


def check_engine(worker: ContainerWorker, has: Callable[[PurePosixPath], bool]) -> None:
    """Pause, kill and start a worker, and take its disk. `has`: whether the container has a path."""
    container, place = worker.process, worker.place

    def state() -> str:
        return "paused" if container.stopped else "runs" if container.alive else "ended"

    assert state() == "runs"
    assert container.send(signal.SIGSTOP)
    assert state() == "paused"
    continued = ContinueContainer(worker.worker, container)
    assert [continued.undo(CLOCK), continued.undo(CLOCK)] == ["continued", "continued"]
    assert state() == "runs"

    assert container.send(signal.SIGKILL)
    assert state() == "ended"
    assert not container.send(signal.SIGKILL)
    assert continued.undo(CLOCK) == "the container has ended"
    aside = place.with_name(f"{place.name}.drill-1")
    assert move_in_volume(worker, place, aside) == "moved"
    started = StartContainer(worker.worker, container)
    assert started.undo(CLOCK) == f"started by {container.engine}"
    assert started.undo(CLOCK) == "runs"
    assert state() == "ended"  # another run of it: a drill signals only the one that it has identified
    assert not container.send(signal.SIGKILL)
    back = MoveBackInVolume(container, worker.image, worker.user, str(aside), str(place))
    assert has(aside)
    assert back.undo(CLOCK) in {"moved", "replaced by a new one; the old one was deleted"}
    assert not has(aside)
    assert back.undo(CLOCK) == "was in its place"

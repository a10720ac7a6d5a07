"""The clients of a drill that uses more than the driller's own reader: `environment_of`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.api.app import DeclaredApp
from pipeline.drills.drill import Scene
from pipeline.processes.wiring import build_environment
from pipeline.runtime.environment import Environment

__all__ = ["environment_of"]


@contextmanager
def environment_of(scene: Scene) -> Iterator[Environment]:
    """Open the clients of the app's Kafka and checkpoint store, and close them afterwards."""
    environment = build_environment(DeclaredApp(scene.app), scene.settings)
    try:
        yield environment
    finally:
        environment.executor.close()
        if environment.checkpoints is not None:
            environment.checkpoints.transfers.close()
        environment.cluster.close()

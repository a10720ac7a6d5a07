"""The scene of a drill without a Kafka: the in-memory fleet of the sums app, and workers that look local."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config import DrillSettings, Settings, WorkerSettings
from pipeline.drills.observation import Observer
from pipeline.drills.runner import Runner
from pipeline.drills.scene import Options, Scene
from pipeline.drills.workers import LocalWorker, Process
from pipeline.ports import CheckpointStore
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.fleet import Fleet

__all__ = ["APP", "observer_of", "runner_of", "scene_of", "settings_of"]

APP = "sums"


def settings_of(
    directory: Path, *, allow: Sequence[str] = (APP,), store: str = "", **drills: object
) -> Settings:
    """Settings that allow drills of the app."""
    chosen = replace(DrillSettings(tuple(allow), directory, steady_s=0.1), **drills)  # type: ignore[arg-type]
    return Settings(worker=WorkerSettings(checkpoint_store=store), drills=chosen)


def runner_of(fleet: Fleet, settings: Settings, say: Callable[[str], None] = lambda _: None) -> Runner:
    """The runner, on the fleet's Kafka and clock."""
    cluster, reader = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    return Runner(APP, settings, cluster, reader, None, fleet.clock, say)


def observer_of(fleet: Fleet) -> Observer:
    """An observer that has begun."""
    observer = Observer(APP, MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker), fleet.clock)
    observer.begin()
    return observer


def scene_of(
    fleet: Fleet,
    settings: Settings,
    *,
    options: Options | None = None,
    local: Sequence[str] = ("a", "b"),
    store: CheckpointStore | None = None,
    place: Path = Path("/nowhere/sums"),
    supervised: bool = False,
    command: Sequence[str] = ("pipeline", "worker", "sums:app"),
) -> Scene:
    """The fleet as it is now. `local`: the workers that look as if this host ran them."""
    cluster, reader = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    observer = Observer(APP, cluster, reader, fleet.clock)
    workers = [
        LocalWorker(name, name, Process.of(os.getpid()), place, command, Path("/"), None, supervised)
        for name in local
    ]
    return Scene(
        APP,
        settings,
        replace(options or Options()),
        cluster,
        reader,
        fleet.clock,
        store,
        observer.begin(),
        workers,
    )

"""The world a worker runs in: every port, bundled once at the edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.names import TaskId
from pipeline.ports import (
    Clock,
    Cluster,
    Executor,
    JournalReader,
    Logger,
    Members,
    Producers,
    Random,
    Sources,
    Step,
    Steps,
    Stores,
)

__all__ = ["NoSteps", "World"]


class NoSteps:
    """Production's answer to a named step: nothing."""

    def reached(self, step: Step, task: TaskId) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """Real adapters in production, fakes in tests. `journals` opens a reader for the calling thread."""

    cluster: Cluster
    sources: Sources
    producers: Producers
    members: Members
    journals: Callable[[], JournalReader]
    stores: Stores
    clock: Clock
    random: Random
    executor: Executor
    log: Logger
    steps: Steps

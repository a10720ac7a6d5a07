"""`WorkerMetrics`: the metrics of one worker, for whatever reads them: the HTTP port, and the export to OpenTelemetry.

The processing thread publishes the worker's figures about once a second, and counts events in `meter`. The readers have
threads of their own. What a metric needs of Kafka is read in the background, and is shared by all readers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pipeline.core.names import GroupId, TopicPartition
from pipeline.http.background import Background
from pipeline.http.documents import StatusClients
from pipeline.http.exporter import Exporter, ExporterSources
from pipeline.ports import Clock
from pipeline.runtime.metrics.figures import WorkerFigures
from pipeline.runtime.metrics.meter import Meter
from pipeline.runtime.status import read_open_letters

__all__ = ["WorkerMetrics"]

ENDS_WAIT_S = 1.0
LETTERS_S = 30.0
READERS = 2  # a scrape and an export may wait for Kafka at the same time


class WorkerMetrics:
    """The metrics of one worker.

    Args:
        app: The app's name.
        clients: For the ends of the inputs and the open dead letters.
        clock: The clock.

    Attributes:
        meter: Counts the events of the worker.
        exporter: Returns all metrics.
        figures: The last published ones; None until the worker has started.
    """

    def __init__(self, app: str, clients: StatusClients, clock: Clock) -> None:
        self._app = app
        self.clients = clients
        self.clock = clock
        self.figures: WorkerFigures | None = None
        self.meter = Meter(clock.monotonic_s)
        waiters = threading.BoundedSemaphore(READERS)
        self._ends = ends = Background(
            "the end of the inputs", self._read_ends, ENDS_WAIT_S, waiters, clock.monotonic_s
        )
        self._letters = letters = Background(
            "the open dead letters",
            self._read_letters,
            ENDS_WAIT_S,
            waiters,
            clock.monotonic_s,
            fresh_s=LETTERS_S,
            usable_s=4 * LETTERS_S,
        )
        self.exporter = Exporter(
            ExporterSources(
                lambda: self.figures, self.meter, lambda: ends.aged()[0], lambda: letters.aged()[0], clock
            )
        )

    def publish(self, figures: WorkerFigures) -> None:
        """Replace the figures that readers get."""
        self.figures = figures

    def _read_ends(self) -> Mapping[TopicPartition, int]:
        figures = self.figures
        places = (
            sorted({place for task in figures.tasks.values() for place in task.positions}) if figures else []
        )
        return self.clients.reader.stable_ends(places) if places else {}

    def _read_letters(self) -> Mapping[GroupId, int]:
        """Those of groups whose first task is live here: one worker reads them, and not all."""
        figures, clients = self.figures, self.clients
        groups = (
            {group: figures.task_counts.get(group, 0) for group in figures.first_tasks} if figures else {}
        )
        if not groups:
            return {}
        now_ms = self.clock.wall_ms()
        return read_open_letters(self._app, groups, clients.cluster, clients.reader, now_ms)

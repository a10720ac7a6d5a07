"""Scrapes: the metrics of a worker as Prometheus reads them, by a parser that shares no code with the exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from pipeline.core.names import GroupId, TopicPartition
from pipeline.http.application import Request
from pipeline.http.exporter import Exporter, ExporterSources
from pipeline.runtime.metrics.meter import Meter
from pipeline.runtime.status import read_open_letters
from pipeline.runtime.worker import Worker
from pipeline.testing import ManualClock, MemoryBroker, TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

__all__ = ["Scrape", "Scraper", "scraped"]


class Scrape:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of all series with this name and these labels, among others."""
        return [
            value
            for found, theirs, value in self.samples
            if found == name and labels.items() <= theirs.items()
        ]

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def value(self, name: str, **labels: str) -> float:
        """The only value."""
        found = self.values(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [theirs for found, theirs, _ in self.samples if found == name]


class Scraper:
    """Counts the events of a driver's workers, and scrapes the current one."""

    def __init__(self, driver: TestDriver) -> None:
        self._driver = driver
        self.meter = driver._meter = Meter(driver.clock.monotonic_s)
        self.exporter = exporter_of(lambda: driver.worker, self.meter, driver.broker, driver.clock)

    def __call__(self) -> Scrape:
        return Scrape(self.exporter.answer(Request("/metrics")).body.decode())


def scraped(worker: Worker, meter: Meter, broker: MemoryBroker, clock: ManualClock) -> Scrape:
    """What a worker would answer to its first request now."""
    answer = exporter_of(lambda: worker, meter, broker, clock).answer(Request("/metrics"))
    return Scrape(answer.body.decode())


def exporter_of(
    worker: Callable[[], Worker], meter: Meter, broker: MemoryBroker, clock: ManualClock
) -> Exporter:
    """An exporter that takes the figures of a worker at each request."""

    def ends() -> Mapping[TopicPartition, int]:
        places = [place for task in worker().figures().tasks.values() for place in task.positions]
        return MemoryJournalReader(broker).stable_ends(places)

    def letters() -> Mapping[GroupId, int]:
        figures = worker().figures()
        groups = {group: figures.task_counts[group] for group in figures.first_tasks}
        cluster, reader = MemoryCluster(broker), MemoryJournalReader(broker)
        return read_open_letters(figures.app, groups, cluster, reader, clock.wall_ms())

    return Exporter(ExporterSources(lambda: worker().figures(), meter, ends, letters, clock))

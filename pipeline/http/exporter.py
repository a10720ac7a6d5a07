"""`Exporter`: the metrics of a worker, in the text format of Prometheus or as values (`families`).

Counters and gauges of tasks come from the last published `WorkerFigures`, events and durations from the `Meter`,
figures of RocksDB from the open states. Nothing is computed between two requests.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.core.membership import TaskRole
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.core.recovery_time import RecoverySpeed, predicted_restore_s
from pipeline.errors import PipelineError
from pipeline.http.application import Answer, Request
from pipeline.http.families import FAMILIES, Kind
from pipeline.ports import Clock, MetricFamily, MetricPoint
from pipeline.runtime.metrics.figures import PHASES, TaskFigures, WorkerFigures
from pipeline.runtime.metrics.meter import CommitResult, Histogram, Measured, Meter

__all__ = ["Exporter", "ExporterSources"]

BUSY_WINDOW_S = 5.0
_OUTCOMES = ("handled", "skipped", "dead_letter", "duplicate", "late")


@dataclass(frozen=True, slots=True)
class ExporterSources:
    """Where the values come from.

    `figures`: the last published ones; None until the worker has started. `ends`: the ends of the inputs. `letters`:
    the open dead letters of the groups whose first task is live here. Both may raise a PipelineError.
    """

    figures: Callable[[], WorkerFigures | None]
    meter: Meter
    ends: Callable[[], Mapping[TopicPartition, int]]
    letters: Callable[[], Mapping[GroupId, int]]
    clock: Clock


class Exporter:
    """Answers requests for `/metrics`."""

    def __init__(self, sources: ExporterSources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(sources))
        ProcessCollector(registry=self._registry)

    def answer(self, request: Request) -> Answer:
        """All metrics, in the format that the client accepts."""
        encode, content_type = choose_encoder(request.accept)
        return Answer(encode(self._registry), content_type)

    def families(self) -> Iterator[MetricFamily]:
        """The same metrics as values, for other formats."""
        for metric in self._registry.collect():
            yield from _families_of(metric)


def _families_of(metric: Metric) -> Iterator[MetricFamily]:
    """The samples of a metric. Of a histogram, the samples of one series become one point."""
    if metric.type == "histogram":
        yield MetricFamily(metric.name, metric.documentation, "histogram", _histograms_of(metric))
        return
    kind: Literal["counter", "gauge"] = "counter" if metric.type == "counter" else "gauge"
    points: dict[str, list[MetricPoint]] = {}
    for sample in metric.samples:
        points.setdefault(sample.name, []).append(MetricPoint(sample.labels, sample.value))
    for name, found in points.items():
        yield MetricFamily(name, metric.documentation, kind, found)


def _histograms_of(metric: Metric) -> list[MetricPoint]:
    cumulative: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    found = []
    for sample in metric.samples:  # the buckets of a series, in order, are before its sum
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        buckets = cumulative.setdefault(tuple(labels.values()), [])
        if sample.name.endswith("_bucket"):
            buckets.append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            counts = [int(count) for _, count in buckets]
            each = [count - before for before, count in zip([0, *counts], counts, strict=False)]
            found.append(MetricPoint(labels, sample.value, [bound for bound, _ in buckets[:-1]], each))
    return found


class _Collector(Collector):
    def __init__(self, sources: ExporterSources) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._busy: deque[tuple[float, Mapping[GroupId, float]]] = deque()
        self._busy_ratios()

    def describe(self) -> list[Metric]:
        """Declare nothing at the registration: the values need a worker."""
        return []

    def collect(self) -> Iterator[Metric]:
        samples = _Samples()
        measured, figures = self._sources.meter.read(), self._sources.figures()
        self._add_durations(samples, measured)
        if figures is not None:
            samples.add("pipeline_workers", (figures.app,), figures.members)
            watched, reached = figures.peers
            samples.add("pipeline_peers", (figures.app, "true"), reached)
            samples.add("pipeline_peers", (figures.app, "false"), max(0, watched - reached))
            samples.add("pipeline_kafka_unreachable_seconds", (figures.app,), figures.kafka_unreachable_s)
            samples.add("pipeline_cache_bytes", (figures.app,), figures.cache_bytes)
            for group, count in sorted(figures.task_counts.items()):
                samples.add("pipeline_tasks", group, count)
            self._add_letters(samples, figures)
            self._add_lags(samples, figures)
            for task in sorted(figures.tasks):
                self._add_task(samples, task, figures.tasks[task], figures.speed)
            _add_events(samples, measured, sorted(figures.tasks))
        yield from samples.families

    def _add_durations(self, samples: _Samples, measured: Measured) -> None:
        for group, ratio in self._busy_ratios().items():
            samples.add("pipeline_handler_busy_ratio", group, ratio)
        for name, histograms in (
            ("pipeline_handler_seconds", measured.handler_s),
            ("pipeline_commit_seconds", measured.commit_s),
            ("pipeline_restore_seconds", measured.restore_s),
        ):
            for group, histogram in sorted(histograms.items()):
                samples.add_histogram(name, group, histogram)
        for task, progress in measured.restores.items():
            remaining = progress.remaining_bytes()
            if remaining is not None:
                samples.add("pipeline_restore_remaining_bytes", _labels(task), remaining)

    def _busy_ratios(self) -> Mapping[GroupId, float]:
        """The share of time in handlers since an earlier request, which was at least BUSY_WINDOW_S ago if possible."""
        with self._lock:
            now_s, busy_s = self._sources.clock.monotonic_s(), self._sources.meter.read().busy_s
            while len(self._busy) > 1 and now_s - self._busy[1][0] >= BUSY_WINDOW_S:
                self._busy.popleft()
            since_s, before = self._busy[0] if self._busy else (now_s, busy_s)
            self._busy.append((now_s, busy_s))
        seconds = now_s - since_s
        if seconds <= 0:
            return {}
        return {
            group: min(1.0, (spent - before.get(group, 0.0)) / seconds) for group, spent in busy_s.items()
        }

    def _add_lags(self, samples: _Samples, figures: WorkerFigures) -> None:
        """Without an answer of Kafka there are no lags: an old end would look like an input without new records."""
        positions = {
            (task, place): position
            for task, of_task in figures.tasks.items()
            for place, position in of_task.positions.items()
        }
        if not positions:
            return
        try:
            ends = self._sources.ends()
        except PipelineError:
            return
        for (task, place), position in positions.items():
            if place in ends:
                labels = (*_labels(task), place.topic, str(place.partition))
                samples.add("pipeline_input_lag_records", labels, max(0, ends[place] - position))

    def _add_letters(self, samples: _Samples, figures: WorkerFigures) -> None:
        if not figures.first_tasks:
            return
        try:
            letters = self._sources.letters()
        except PipelineError:
            return
        for group, count in sorted(letters.items()):
            samples.add("pipeline_open_dead_letters", group, count)

    def _add_task(self, samples: _Samples, task: TaskId, figures: TaskFigures, speed: RecoverySpeed) -> None:
        labels = _labels(task)
        for role, phase in PHASES.items():
            samples.add("pipeline_task_phase", (*labels, phase), float(figures.role is role))
        counts = figures.counts
        if counts:
            others = [counts[name] for name in ("skipped", "dead_lettered", "duplicates", "late_duplicates")]
            for outcome, count in zip(_OUTCOMES, [counts["records"] - sum(others), *others], strict=True):
                samples.add("pipeline_records_total", (*labels, outcome), max(0, count))
            samples.add("pipeline_outputs_total", labels, counts["outputs"])
            samples.add("pipeline_rows_total", labels, counts["rows"])
            samples.add("pipeline_retries_total", labels, counts["retried"])
        if figures.role is TaskRole.LIVE:
            samples.add("pipeline_input_paused", labels, float(figures.paused))
            samples.add("pipeline_stopped_partitions", labels, figures.stopped_partitions)
        if figures.clock_ms is not None:
            behind_ms = max(0, self._sources.clock.wall_ms() - figures.clock_ms)
            samples.add("pipeline_clock_behind_seconds", labels, behind_ms / 1000)
            samples.add("pipeline_late_events_total", labels, counts["late_events"])
            samples.add("pipeline_history_values_removed_total", labels, counts["removed_values"])
            samples.add("pipeline_join_events_removed_total", labels, counts["removed_events"])
        if figures.applied is not None:
            newest = next(iter(figures.applied.checkpoints), None)
            size, journal = newest.size if newest is not None else 0, figures.applied.bytes_after_checkpoint
            predicted_s = predicted_restore_s(size, journal, speed)
            samples.add("pipeline_restore_predicted_seconds", labels, predicted_s)
            samples.add("pipeline_journal_bytes", labels, journal)
            if newest is not None:
                age_ms = max(0, self._sources.clock.wall_ms() - newest.wall_ms)
                samples.add("pipeline_checkpoint_age_seconds", labels, age_ms / 1000)
                samples.add("pipeline_checkpoint_bytes", labels, size)
        usage = figures.store.usage() if figures.store is not None else None
        if usage is not None:
            samples.add("pipeline_rocksdb_memtable_bytes", labels, usage.memtable_bytes)
            samples.add("pipeline_rocksdb_table_reader_bytes", labels, usage.table_reader_bytes)
            samples.add("pipeline_rocksdb_sst_bytes", labels, usage.sst_bytes)
            samples.add("pipeline_rocksdb_pending_compaction_bytes", labels, usage.pending_compaction_bytes)
            samples.add("pipeline_rocksdb_write_stalls_total", (*labels, "delay"), usage.write_delays)
            samples.add("pipeline_rocksdb_write_stalls_total", (*labels, "stop"), usage.write_stops)
            samples.set_once("pipeline_rocksdb_block_cache_bytes", (task.app,), usage.block_cache_bytes)


def _add_events(samples: _Samples, measured: Measured, tasks: Sequence[TaskId]) -> None:
    """The counts of events, from zero on: a counter that appears with its first event shows no increase."""
    for task in tasks:
        labels = _labels(task)
        for result in CommitResult:
            count = measured.commits.get((task, result), 0)
            samples.add("pipeline_commits_total", (*labels, result.value), count)
        samples.add("pipeline_commit_wait_seconds_total", labels, measured.commit_wait_s.get(task, 0.0))
        samples.add("pipeline_fences_total", labels, measured.fences.get(task, 0))
        samples.add("pipeline_producer_renewals_total", labels, measured.renewals.get(task, 0))
    for group in sorted({task.group_id for task in tasks}):
        for planned in (False, True):
            moves = measured.moves.get((group, planned), 0)
            samples.add("pipeline_tasks_moved_total", (*group, str(planned).lower()), moves)


class _Samples:
    """The samples of one request, by family."""

    def __init__(self) -> None:
        self._plain: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        self._histograms: dict[str, HistogramMetricFamily] = {}
        for family in FAMILIES:
            if family.kind is Kind.HISTOGRAM:
                self._histograms[family.name] = HistogramMetricFamily(
                    family.name, family.help, labels=family.labels
                )
            else:
                kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
                self._plain[family.name] = kind(family.name, family.help, labels=family.labels)

    @property
    def families(self) -> list[Metric]:
        return [*self._plain.values(), *self._histograms.values()]

    def add(self, name: str, labels: tuple[str, ...], value: float) -> None:
        self._plain[name].add_metric(labels, value)

    def set_once(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Add a value that several tasks share, unless it was added before."""
        if not self._plain[name].samples:
            self.add(name, labels, value)

    def add_histogram(self, name: str, labels: tuple[str, ...], histogram: Histogram) -> None:
        self._histograms[name].add_metric(labels, histogram.cumulative(), histogram.total)


def _labels(task: TaskId) -> tuple[str, str, str]:
    return task.app, task.group, str(task.number)

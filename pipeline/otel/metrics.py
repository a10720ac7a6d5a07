"""`MetricsPush`: sends the metrics of `/metrics` at an interval, under the same names and with the same labels.

The values come from the collection that a scrape reads, and are cumulative since the start of the process. The unit of
each metric is empty: its name already ends with the unit, and receivers would append it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pipeline.ports import MetricFamily, MetricPoint

__all__ = ["MetricsPush"]

_CUMULATIVE = AggregationTemporality.CUMULATIVE
_NO_EXTREME: float = None  # type: ignore[assignment]  # the extremes of a histogram are optional in OTLP


class MetricsPush:
    """Sends metrics on a thread of its own, from `start` to `stop`.

    Args:
        exporter: Of the library.
        families: Returns the metrics.
        resource: What they describe.
        scope: What measures them.
        sent: Called with the outcome of each request.
        interval_s: The time between two requests.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        families: Callable[[], Iterable[MetricFamily]],
        resource: Resource,
        scope: InstrumentationScope,
        sent: Callable[[bool], None],
        interval_s: float,
    ) -> None:
        self._exporter = exporter
        self._families = families
        self._resource = resource
        self._scope = scope
        self._sent = sent
        self._interval_s = interval_s
        self._began_ns = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pipeline-otel-metrics")

    def start(self) -> None:
        """Send from now on. The first request is after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Send the last values, and end."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.push()
        self.push()

    def push(self) -> None:
        """Send the current values."""
        try:
            result = self._exporter.export(self._data())
        except Exception:  # noqa: BLE001 - an error of the library must not end the thread
            result = MetricExportResult.FAILURE
        self._sent(result is MetricExportResult.SUCCESS)

    def _data(self) -> MetricsData:
        now_ns = time.time_ns()
        metrics = [
            Metric(family.name, family.help, "", self._values(family, now_ns))
            for family in self._families()
            if family.points
        ]
        return MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(self._scope, metrics, "")], "")])

    def _values(self, family: MetricFamily, now_ns: int) -> Sum | Gauge | Histogram:
        began_ns = self._began_ns
        if family.kind == "histogram":
            return Histogram([_histogram(point, began_ns, now_ns) for point in family.points], _CUMULATIVE)
        points = [
            NumberDataPoint(dict(point.labels), began_ns, now_ns, point.value) for point in family.points
        ]
        return Sum(points, _CUMULATIVE, is_monotonic=True) if family.kind == "counter" else Gauge(points)


def _histogram(point: MetricPoint, began_ns: int, now_ns: int) -> HistogramDataPoint:
    return HistogramDataPoint(
        dict(point.labels),
        began_ns,
        now_ns,
        sum(point.counts),
        point.value,
        point.counts,
        point.bounds,
        _NO_EXTREME,
        _NO_EXTREME,
    )

"""`Telemetry`: the export of one worker process to OpenTelemetry, from its start to `close`.

It has providers of its own and sets no global ones, so a handler that uses OpenTelemetry is not affected. `close` waits
for a bounded time, and does not wait at all for a collector that did not accept the last request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pipeline.config import OtelSettings
from pipeline.errors import ConfigError
from pipeline.otel.collector import CollectorHealth, LibraryLog, WatchedSpans
from pipeline.otel.metrics import MetricsPush
from pipeline.otel.spans import OtelTracer
from pipeline.ports import Logger, MetricFamily, NoTracer, Tracer

__all__ = ["Telemetry"]

CLOSE_S = 2.0
CANCEL_S = 0.5  # for the last messages of the library, which must not reach the log of the worker
INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
_INTERVAL_MS = "60000"  # the default of the specification
_SCOPE = "exactly-once-pipeline"


class Telemetry:
    """Exports the metrics and the spans of a worker.

    Args:
        app: The name of the app: the default of `service.name`.
        worker_id: The worker: the default of `service.instance.id`.
        settings: Where to.
        families: Returns the metrics.
        log: The log.

    Raises:
        ConfigError: A variable of OpenTelemetry has a wrong value.
    """

    def __init__(
        self,
        app: str,
        worker_id: str,
        settings: OtelSettings,
        families: Callable[[], Iterable[MetricFamily]],
        log: Logger,
    ) -> None:
        self._library = LibraryLog()
        self._health = CollectorHealth(log, self._library)
        self._ends: list[Callable[[], None]] = []  # send what waits, and end
        self._cancels: list[Callable[[], None]] = []  # end without sending
        self.tracer: Tracer = NoTracer()
        self._library.attach()
        try:
            own = {"service.name": app, "service.instance.id": worker_id}
            resource = Resource.create(own).merge(OTELResourceDetector().detect())
            if settings.traces_url:
                self.tracer = self._traces(settings, resource)
            if settings.metrics_url:
                self._metrics(settings, resource, families)
        except (ValueError, OSError) as error:
            self.close()
            raise ConfigError(
                f"the export to OpenTelemetry cannot start: {error}",
                hint="correct the variables OTEL_*: docs/how-to/opentelemetry.md",
            ) from error
        log.info("telemetry_started", metrics_url=settings.metrics_url, traces_url=settings.traces_url)

    def close(self) -> None:
        """Send what waits, for CLOSE_S at most, and end."""
        if self._health.failing:
            self._cancel()
        closer = threading.Thread(target=self._end, daemon=True, name="pipeline-otel-close")
        closer.start()
        closer.join(CLOSE_S)
        if closer.is_alive():
            self._cancel()
            closer.join(CANCEL_S)
        self._library.detach()

    def _traces(self, settings: OtelSettings, resource: Resource) -> Tracer:
        url = settings.traces_url
        exporter = OTLPSpanExporter(endpoint=url)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(WatchedSpans(exporter, url, self._health)))
        self._ends.append(provider.shutdown)
        self._cancels.append(exporter.shutdown)
        return OtelTracer(provider.get_tracer(_SCOPE), settings)

    def _metrics(
        self, settings: OtelSettings, resource: Resource, families: Callable[[], Iterable[MetricFamily]]
    ) -> None:
        url, health = settings.metrics_url, self._health
        exporter = OTLPMetricExporter(endpoint=url)
        push = MetricsPush(
            exporter,
            families,
            resource,
            InstrumentationScope(_SCOPE),
            lambda accepted: health.sent("metrics", url, accepted=accepted),
            _interval_s(),
        )
        push.start()
        self._ends.append(push.stop)
        self._cancels.append(exporter.shutdown)

    def _end(self) -> None:
        for end in self._ends:
            end()

    def _cancel(self) -> None:
        for cancel in self._cancels:
            cancel()


def _interval_s() -> float:
    """The time between two requests with metrics. Raises ValueError."""
    text = os.environ.get(INTERVAL_VARIABLE) or _INTERVAL_MS
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"{INTERVAL_VARIABLE} is {text!r}; it must be a number of milliseconds above 0")
    return int(text) / 1000

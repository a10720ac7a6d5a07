"""What observes a worker from its own process: the HTTP port, and the export to OpenTelemetry: `Observers`.

Both read the same metrics. A module of either is loaded only if the settings ask for it. Without observers, nothing is
counted and no span is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pipeline.api.app import DeclaredApp
from pipeline.config import DEFAULT_BOOTSTRAP_SERVERS, KafkaSettings, Settings
from pipeline.errors import ConfigError
from pipeline.installation import install_hint
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import Logger, NoTracer, SystemClock, Tracer
from pipeline.runtime.metrics.meter import Meter

if TYPE_CHECKING:
    from pipeline.http.application import Pages
    from pipeline.http.documents import DrillReports, StatusClients
    from pipeline.http.port import WorkerPort
    from pipeline.http.worker_metrics import WorkerMetrics

__all__ = ["UNOBSERVED", "Observers", "observed", "servers_for_commands", "status_clients"]


@dataclass(frozen=True, slots=True)
class Observers:
    """The observers of a worker. `metrics`: None if nothing reads them. `port`: None without an HTTP port."""

    metrics: WorkerMetrics | None = None
    port: WorkerPort | None = None
    tracer: Tracer = field(default_factory=NoTracer)

    @property
    def meter(self) -> Meter | None:
        """Counts events for the metrics."""
        return self.metrics.meter if self.metrics is not None else None


UNOBSERVED = Observers()


@contextmanager
def observed(
    app: DeclaredApp,
    settings: Settings,
    target: str,
    reports: DrillReports | None,
    pages: Pages | None = None,
) -> Iterator[Observers]:
    """The observers that the settings ask for, which end with the context.

    `target` and `reports`: for the page. `pages`: those of the application. The settings have a worker id.

    Raises ConfigError.
    """
    exports = bool(settings.otel.metrics_url or settings.otel.traces_url)
    if not settings.http.port and not exports:
        yield UNOBSERVED
        return
    from pipeline.http.worker_metrics import WorkerMetrics  # noqa: PLC0415 - loaded only if it is used

    log: Logger = structlog.get_logger("pipeline")
    metrics = WorkerMetrics(app.name, status_clients(settings.kafka), SystemClock())
    with ExitStack() as ends:
        tracer = _export(app.name, settings, metrics, log, ends) if exports else NoTracer()
        port = _http_port(app, settings, target, reports, metrics, log, pages) if settings.http.port else None
        if port is not None:
            ends.callback(port.stop)
        read = port is not None or bool(settings.otel.metrics_url)
        yield Observers(metrics if read else None, port, tracer)


def _export(app: str, settings: Settings, metrics: WorkerMetrics, log: Logger, ends: ExitStack) -> Tracer:
    """Start the export to OpenTelemetry, which ends with `ends`. Raises ConfigError."""
    try:
        from pipeline.otel.telemetry import Telemetry  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "an endpoint of OpenTelemetry is set, and the export needs the extra `otel`",
            hint=f"{install_hint('otel')}; or unset otel.endpoint and the variables OTEL_EXPORTER_OTLP_*ENDPOINT, or "
            "set OTEL_SDK_DISABLED=true",
        ) from error
    telemetry = Telemetry(app, settings.worker.worker_id, settings.otel, metrics.exporter.families, log)
    ends.callback(telemetry.close)
    return telemetry.tracer


def _http_port(
    app: DeclaredApp,
    settings: Settings,
    target: str,
    reports: DrillReports | None,
    metrics: WorkerMetrics,
    log: Logger,
    pages: Pages | None,
) -> WorkerPort | None:
    """Open the HTTP port of this process; None if it is taken."""
    from pipeline.http.documents import PageApp  # noqa: PLC0415 - loaded only if it is used
    from pipeline.http.port import WorkerPort  # noqa: PLC0415 - as above

    servers, worker = servers_for_commands(settings.kafka), settings.worker
    about = PageApp(app.name, app, target, servers, worker.worker_id, reports)
    port = WorkerPort(about, settings.http, worker, metrics, log, pages)
    return port if port.start() else None


def status_clients(settings: KafkaSettings) -> StatusClients:
    """The Kafka clients of an HTTP port. None is opened before it is used."""
    from pipeline.http.documents import StatusClients  # noqa: PLC0415 - loaded only if it is used

    return StatusClients(
        lambda: KafkaCluster(settings), lambda: KafkaJournalReader(settings), lambda: KafkaSources(settings)
    )


def servers_for_commands(settings: KafkaSettings) -> str:
    """The addresses that commands need to reach the same Kafka; empty if it is the default one."""
    return "" if settings.bootstrap_servers == DEFAULT_BOOTSTRAP_SERVERS else settings.bootstrap_servers

"""Whether a collector accepts what is sent: `CollectorHealth`. A failure is logged once, and so is the recovery.

The library of OpenTelemetry logs each failed request, at several levels. `LibraryLog` keeps these messages out of the
worker's log, and keeps the last ones as the reason: the error of an attempt, and that there was no other attempt.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from pipeline.ports import Logger

__all__ = ["CollectorHealth", "LibraryLog", "WatchedSpans"]

Signal = Literal["metrics", "traces"]

_LIBRARY = "opentelemetry"


class LibraryLog(logging.Handler):
    """Takes the log messages of the library, from `attach` to `detach`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last: deque[str] = deque(maxlen=2)
        self._propagated = True

    @property
    def reason(self) -> str:
        """The last messages; empty if there was none."""
        return "; ".join(self._last)

    def attach(self) -> None:
        """Take the messages from now on."""
        logger = logging.getLogger(_LIBRARY)
        self._propagated, logger.propagate = logger.propagate, False
        logger.addHandler(self)

    def detach(self) -> None:
        """Leave the messages to the handlers that they went to before."""
        logger = logging.getLogger(_LIBRARY)
        logger.removeHandler(self)
        logger.propagate = self._propagated

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self._last.append(record.getMessage())


class CollectorHealth:
    """The outcome of the last request of each signal.

    Args:
        log: For a failure and for the recovery.
        library: The messages of the library.
    """

    def __init__(self, log: Logger, library: LibraryLog) -> None:
        self._log = log
        self._library = library
        self._lock = threading.Lock()
        self._failing: set[Signal] = set()
        self._lost = 0

    @property
    def failing(self) -> bool:
        """Whether the last request of a signal has failed."""
        return bool(self._failing)

    def sent(self, signal: Signal, url: str, *, accepted: bool) -> None:
        """Note the outcome of a request. It is logged only if it changes the state."""
        with self._lock:
            before = bool(self._failing)
            (self._failing.discard if accepted else self._failing.add)(signal)
            self._lost += not accepted
            lost, now = self._lost, bool(self._failing)
            if before and not now:
                self._lost = 0
        if now and not before:
            self._log.warning(
                "telemetry_unavailable",
                signal=signal,
                url=url,
                message=self._library.reason or "the collector does not accept the request",
                hint="check the collector and otel.endpoint (OTEL_EXPORTER_OTLP_ENDPOINT). Processing continues; the "
                "metrics and traces of this time are lost",
            )
        if before and not now:
            self._log.warning("telemetry_available", signal=signal, url=url, lost_requests=lost)


class WatchedSpans(SpanExporter):
    """Sends spans by `exporter`, and notes the outcome."""

    def __init__(self, exporter: SpanExporter, url: str, health: CollectorHealth) -> None:
        self._exporter = exporter
        self._url = url
        self._health = health

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        result = self._exporter.export(spans)
        self._health.sent("traces", self._url, accepted=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """End the request in progress, and refuse others."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is buffered here."""
        return self._exporter.force_flush(timeout_millis)

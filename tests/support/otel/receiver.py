"""`Receiver`: a collector that parses what it gets over OTLP/HTTP, and `Received`, its metrics by series."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.waiting import wait_until

__all__ = ["Receiver", "attributes_of", "series_of"]

Series = tuple[str, frozenset[tuple[str, str]]]


class Receiver:
    """Listens from its creation to `close`. `status`: of its answers; `gate`: answers wait until it is set."""

    def __init__(self) -> None:
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.traces: list[ExportTraceServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver._take(self.path, body, dict(self.headers))
                self.send_response(receiver.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library names it
                """Nothing: the tests read what was received."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        self.asked.set()
        self.gate.wait(30)
        self.headers.append(headers)
        if path.endswith("/v1/metrics"):
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
            return bytes(ExportMetricsServiceResponse().SerializeToString())
        self.traces.append(ExportTraceServiceRequest.FromString(body))
        return bytes(ExportTraceServiceResponse().SerializeToString())

    def close(self) -> None:
        """Close the port."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        """All spans, in the order of their start."""
        found = [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: int(span.start_time_unix_nano))

    def await_metrics(self, count: int = 1) -> None:
        """Wait for this many requests with metrics."""
        wait_until(lambda: len(self.metrics) >= count, lambda: f"{len(self.metrics)} requests")


def attributes_of(owner: Any) -> dict[str, str | int]:
    """The attributes of a span, a resource or a point."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in owner.attributes
    }


def series_of(request: ExportMetricsServiceRequest) -> dict[Series, float]:
    """The value of each series, with the names that Prometheus gives to the parts of a histogram."""
    found: dict[Series, float] = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            labels = frozenset((name, str(value)) for name, value in attributes_of(point).items())
            if kind != "histogram":
                found[metric.name, labels] = point.as_int if point.HasField("as_int") else point.as_double
                continue
            seen = 0
            for bound, count in zip([*point.explicit_bounds, "+Inf"], point.bucket_counts, strict=True):
                seen += count
                found[f"{metric.name}_bucket", labels | {("le", str(bound))}] = seen
            found[f"{metric.name}_count", labels] = point.count
            found[f"{metric.name}_sum", labels] = point.sum
    return found

"""`WorkerPort`: the HTTP port of one worker process, with its probes, `Liveness` and `readiness`.

Everything runs on the threads of the server, and reads what the processing thread has published (`WorkerMetrics`). A
port that is taken is a warning: processing matters more.

Liveness says whether a restart of the process would help. So it fails only if the processing loop makes no progress for
longer than a handler may take. It says nothing about Kafka, because a restart does not repair a broker. Readiness says
whether every task that is assigned to this worker is live here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus

from pipeline.config import HttpSettings, WorkerSettings
from pipeline.core.suggestions import are, counted
from pipeline.http.application import Answer, Application, Pages, Request, Route, json_answer
from pipeline.http.documents import AppDocuments, PageApp
from pipeline.http.rows import ROWS, RowDocuments
from pipeline.http.server import MAX_BODY_BYTES, THREADS, HttpServer
from pipeline.http.ui import page_routes
from pipeline.http.worker_metrics import WorkerMetrics
from pipeline.ports import Logger
from pipeline.runtime.metrics.figures import WorkerFigures
from pipeline.runtime.row_queries import RowQueries

__all__ = ["PAGE_THREADS", "Liveness", "WorkerPort", "readiness"]

PAGE_THREADS = 16  # that wait for pages of the application, while others answer the probes
MAX_PAGE_BODY_BYTES = 1024 * 1024

_SHOWN_TASKS = 20


class Liveness:
    """Compares the mark of the processing loop with the mark of earlier requests.

    Args:
        limit_s: How long the mark may stay the same: `worker.handler_warning_s`.
        monotonic_s: The clock.
    """

    def __init__(self, limit_s: float, monotonic_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._mark: object = None
        self._since_s = 0.0

    def check(self, mark: object) -> Answer:
        """The answer to a request. `mark`: of the loop; None while it starts or stops, which has its own time-outs."""
        now_s = self._now_s()
        with self._lock:
            if mark is None or mark != self._mark:
                self._mark, self._since_s = mark, now_s
            stuck_s = now_s - self._since_s
        if mark is None or stuck_s <= self._limit_s:
            return json_answer({"live": True})
        return json_answer(
            {
                "live": False,
                "error": f"the processing loop has made no progress for at least {stuck_s:.0f} s",
                "hint": "find the handler in the log (handler_has_not_returned): runbooks/handler-hangs.md",
            },
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


def readiness(figures: WorkerFigures | None, *, stopping: bool) -> Answer:
    """The answer to a request. `figures`: None until the worker has started."""
    if stopping:
        return _not_ready("the worker is stopping")
    if figures is None or figures.assigned is None:
        return _not_ready("the worker is starting")
    missing = figures.not_live
    if not missing:
        return json_answer({"ready": True, "tasks": len(figures.assigned)})
    named = {str(task): figures.phase(task) for task in missing[:_SHOWN_TASKS]}
    return _not_ready(
        f"{len(missing)} of {counted(len(figures.assigned), 'assigned task')} {are(len(missing))} not live here",
        tasks=named,
    )


def _not_ready(reason: str, **details: object) -> Answer:
    return json_answer({"ready": False, "error": reason, **details}, HTTPStatus.SERVICE_UNAVAILABLE)


class WorkerPort:
    """Serves the paths of one worker from `start` to `stop`.

    Args:
        app: The app.
        settings: The address and the token.
        worker: For the limit of the liveness probe.
        metrics: Those of the worker.
        log: The log.
        pages: Those of the application, if it has any.
    """

    def __init__(
        self,
        app: PageApp,
        settings: HttpSettings,
        worker: WorkerSettings,
        metrics: WorkerMetrics,
        log: Logger,
        pages: Pages | None = None,
    ) -> None:
        self._settings = settings
        self.metrics = metrics
        self._log = log
        self._mark: Callable[[], object] | None = None
        self._stopping = False
        self._liveness = Liveness(worker.handler_warning_s, metrics.clock.monotonic_s)
        self._rows = RowDocuments(app.declared, worker.worker_id)
        self.documents = AppDocuments(app, metrics.clients, settings, metrics.clock)
        self.routes: Mapping[str, Route] = {
            "/livez": Route(self._livez, open=True),
            "/readyz": Route(self._readyz, open=True),
            "/metrics": Route(metrics.exporter.answer, open=True),
            ROWS: Route(self._rows.answer),
            **self.documents.routes,
            **page_routes(),
        }
        application = Application(self.routes, settings, log, pages)
        sizes = (THREADS, MAX_BODY_BYTES) if pages is None else (THREADS + PAGE_THREADS, MAX_PAGE_BODY_BYTES)
        self._server = HttpServer(application, settings.host, settings.port, *sizes)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    def start(self) -> bool:
        """Listen. Returns whether it does; a failure is logged."""
        host, port = self._settings.host, self._settings.port
        try:
            self._server.start()
        except OSError as error:
            self._log.warning(
                "http_port_unavailable",
                host=host,
                port=port,
                message=f"cannot listen on {host} port {port}: {error.strerror or error}",
                hint="the worker runs without probes and metrics. Choose another address with --http-host and "
                "--http-port, and start it again",
            )
            return False
        self._log.info("http_listening", host=host, port=self.port)
        return True

    def running(self, mark: Callable[[], object], queries: RowQueries) -> None:
        """The processing loop begins. `mark`: returns a value that changes while it makes progress."""
        self._mark, self._rows.queries = mark, queries

    def stopping(self) -> None:
        """The processing loop has ended. From now on the worker is not ready; `stop_timeout_s` bounds the stop."""
        self._stopping, self._mark = True, None

    def stop(self) -> None:
        """Close the port."""
        self._server.stop()

    def _livez(self, _request: Request) -> Answer:
        mark = self._mark
        return self._liveness.check(None if mark is None else mark())

    def _readyz(self, _request: Request) -> Answer:
        return readiness(self.metrics.figures, stopping=self._stopping)

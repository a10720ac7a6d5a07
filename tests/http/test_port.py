"""The HTTP port of a worker, over a socket: what each path answers while the worker starts, runs and stops."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import msgspec
import pytest
import structlog

from pipeline.app import declared_app
from pipeline.config import HttpSettings, WorkerSettings
from pipeline.errors import UnreachableError
from pipeline.http.documents import PageApp, StatusClients
from pipeline.http.port import WorkerPort
from pipeline.http.worker_metrics import WorkerMetrics
from pipeline.ports import Cluster, JournalReader
from pipeline.runtime.status import read_status, status_document
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemorySources
from tests.support.http.scrape import Scrape
from tests.support.runtime.sums import Sums


class Served:
    """The sums app with an HTTP port on a free port of this host."""

    def __init__(self) -> None:
        self.sums = Sums(partitions=2)
        self.driver = self.sums.driver
        self.log = structlog.testing.CapturingLogger()
        self.reader: JournalReader = MemoryJournalReader(self.driver.broker)
        self.cluster: Cluster = MemoryCluster(self.driver.broker)
        self.about = PageApp("sums", declared_app(self.sums.app), "sums:app")
        clients = StatusClients(
            lambda: self.cluster, lambda: self.reader, lambda: MemorySources(self.driver.broker)
        )
        self.metrics = WorkerMetrics("sums", clients, self.driver.clock)
        self.metrics._ends._wait_s = 60.0  # for the thread of the read, on a busy machine
        self.port = WorkerPort(
            self.about,
            HttpSettings(),
            WorkerSettings(),
            self.metrics,
            self.log,
        )
        self.driver._meter = self.metrics.meter
        assert self.port.start()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own server
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def run(self) -> None:
        self.driver.run()
        self.port.running(lambda: self.driver.worker.mark, self.driver.worker.row_queries)
        self.metrics.publish(self.driver.worker.figures())


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.port.stop()


def test_a_worker_is_live_before_it_is_ready(served: Served) -> None:
    """A restart would not make it ready sooner."""
    assert served.get("/livez")[0] == 200
    assert served.get("/readyz")[0] == 503
    served.run()
    assert (served.get("/livez")[0], served.get("/readyz")[0]) == (200, 200)
    served.port.stopping()
    assert (served.get("/livez")[0], served.get("/readyz")[0]) == (200, 503)


def test_a_loop_that_stands_still_fails_the_probe(served: Served) -> None:
    """Only beyond the limit of the handlers' watchdog."""
    served.run()
    assert served.get("/livez")[0] == 200
    served.driver.clock.advance(WorkerSettings().handler_warning_s + 1)
    assert served.get("/livez")[0] == 503
    served.driver.step()
    assert served.get("/livez")[0] == 200


def test_metrics_come_with_the_ends_that_kafka_gives(served: Served) -> None:
    """The processing thread publishes positions; the port asks for ends itself."""
    served.run()
    served.sums.send(1, 2, 3)
    status, text = served.get("/metrics")
    assert status == 200
    found = Scrape(text)
    assert found.sum("pipeline_input_lag_records", topic="numbers") == 3
    assert found.sum("pipeline_task_phase", phase="live") == 2
    assert found.value("process_resident_memory_bytes") > 1 << 20


def test_metrics_are_there_before_the_worker(served: Served) -> None:
    """Prometheus must see the process from its start, not only when it is well."""
    status, text = served.get("/metrics")
    assert status == 200
    assert Scrape(text).values("process_cpu_seconds_total") != []
    assert Scrape(text).values("pipeline_task_phase") == []


def test_the_format_is_the_one_that_prometheus_asks_for(served: Served) -> None:
    """Newer servers prefer OpenMetrics."""
    served.run()
    _, plain = served.get("/metrics")
    _, open_metrics = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.endswith("# EOF\n")
    assert "# EOF" not in plain


def test_the_status_is_the_document_of_the_command(served: Served) -> None:
    """One document for scripts, for people and for the page."""
    served.sums.send(1)
    served.run()
    status, text = served.get("/api/status")
    now_ms = served.driver.clock.wall_ms()
    expected: Any = status_document(read_status("sums", served.cluster, served.reader, now_ms))
    assert status == 200
    assert msgspec.json.decode(text) == msgspec.json.decode(msgspec.json.encode(expected))
    assert [task["phase"] for task in msgspec.json.decode(text)["tasks"]] == ["live", "live"]


def test_without_kafka_the_status_is_an_error_and_probes_answer(served: Served) -> None:
    """A restart of the worker does not repair a broker."""
    served.run()
    away = UnreachableError("the brokers do not answer", hint="check them")

    def raises(*_: object) -> None:
        raise away

    served.cluster.topics = raises  # type: ignore[method-assign,assignment]
    served.reader.stable_ends = raises  # type: ignore[method-assign,assignment]
    assert served.get("/api/status") == (503, '{"error":"the brokers do not answer","hint":"check them"}\n')
    assert (served.get("/livez")[0], served.get("/readyz")[0]) == (200, 200)
    status, text = served.get("/metrics")
    assert (status, Scrape(text).values("pipeline_input_lag_records")) == (200, [])


def test_a_kafka_that_hangs_delays_neither_probes_nor_metrics(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients wait for a broker for a long time, and a probe has a time-out of a second."""
    served.run()
    answers = threading.Event()

    def hangs(*_: object) -> dict[object, int]:
        assert answers.wait(60)
        return {}

    monkeypatch.setattr(served.port.documents.status, "_wait_s", 0.2)
    monkeypatch.setattr(served.metrics._ends, "_wait_s", 0.2)
    served.cluster.topics = hangs  # type: ignore[method-assign,assignment]
    served.reader.stable_ends = hangs  # type: ignore[method-assign,assignment]
    try:
        assert served.get("/api/status")[0] == 503
        assert served.get("/metrics")[0] == 200
        assert served.get("/livez")[0] == 200
    finally:
        answers.set()


def test_a_port_that_is_taken_is_a_warning(served: Served) -> None:
    """Processing matters more than its probes."""
    log = structlog.testing.CapturingLogger()
    settings = HttpSettings(port=served.port.port)
    second = WorkerPort(served.about, settings, WorkerSettings(), served.metrics, log)
    assert not second.start()
    [call] = log.calls
    assert (call.method_name, call.args) == ("warning", ("http_port_unavailable",))
    assert call.kwargs["port"] == served.port.port
    assert "in use" in call.kwargs["message"]
    second.stop()

"""Starting and ending the export: a collector that is dead or hangs, and a worker without an export."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog

from pipeline.app import declared_app
from pipeline.config import KafkaSettings, OtelSettings, Settings, WorkerSettings, load_settings
from pipeline.errors import ConfigError
from pipeline.otel import telemetry
from pipeline.otel.collector import CollectorHealth, LibraryLog
from pipeline.ports import NoTracer
from pipeline.processes.observers import UNOBSERVED, observed
from tests.support.otel.exporting import Exporting
from tests.support.otel.receiver import Receiver
from tests.support.ports import closed_port
from tests.support.runtime.sums import Sums
from tests.support.waiting import wait_until


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests follow each other closely, and give up soon."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")


def test_a_dead_collector_is_logged_once(fast: None, capfd: pytest.CaptureFixture[str]) -> None:
    """A warning for each request would bury the worker's own log."""
    with closed_port() as port:
        exporting = Exporting(f"http://127.0.0.1:{port}")
        health = exporting.telemetry._health
        for number in range(3):
            exporting.send(number)
            exporting.run()
            wait_until(lambda at=number: health._lost > at, lambda: f"{health._lost} requests")  # type: ignore[misc]
        exporting.close()
    exporting.sums.checker.check()
    assert len(exporting.driver.outputs(exporting.sums.sums)) == 3
    assert exporting.events == ["telemetry_unavailable"]
    [warning] = [call for call in exporting.log.calls if call.method_name == "warning"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in warning.kwargs["hint"]
    assert capfd.readouterr().err == ""  # the library logs nothing of its own


def test_the_recovery_of_a_collector_is_logged(
    receiver: Receiver, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator must know for which time the data is missing."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TIMEOUT")  # a slow answer would be one more outage
    receiver.status = 400
    exporting = Exporting(receiver.url, traces_endpoint="none")
    wait_until(lambda: exporting.events, lambda: "no warning")
    receiver.status = 200
    wait_until(lambda: len(exporting.events) == 2, lambda: str(exporting.events))
    exporting.close()
    assert exporting.events == ["telemetry_unavailable", "telemetry_available"]


def test_a_collector_that_hangs_blocks_no_commit(
    receiver: Receiver, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of the worker only add to a queue."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    monkeypatch.setattr(telemetry, "CLOSE_S", 0.2)
    exporting = Exporting(receiver.url)
    receiver.gate.clear()
    assert receiver.asked.wait(30)
    for number in range(50):
        exporting.send(number)
        exporting.run()
    assert len(exporting.driver.outputs(exporting.sums.sums)) == 50
    began_s = time.monotonic()
    exporting.close()  # the answer is still missing
    assert time.monotonic() - began_s < 20
    assert not receiver.gate.is_set()


def test_an_error_of_the_library_passes_no_commit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace is never a reason to fail a task."""
    exporting = Exporting(receiver.url, propagate=True)

    def fails(*_args: object, **_named: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(exporting.telemetry.tracer, "_begin", fails)
    exporting.send(1)
    exporting.run()
    exporting.close()
    [output] = exporting.driver.outputs(exporting.sums.sums)
    assert "traceparent" not in dict(output.headers)


def test_the_library_logs_as_before_after_the_end() -> None:
    """A program that runs an app may use the library itself."""
    library = LibraryLog()
    library.attach()
    logging.getLogger("opentelemetry.exporter").error("no %s", "answer")
    assert library.reason == "no answer"
    library.detach()
    assert logging.getLogger("opentelemetry").propagate
    assert library not in logging.getLogger("opentelemetry").handlers


def test_signals_share_one_state_in_the_log() -> None:
    """Metrics and traces go to the same collector, and fail together."""
    log = structlog.testing.CapturingLogger()
    health = CollectorHealth(log, LibraryLog())
    health.sent("metrics", "http://c", accepted=False)
    health.sent("traces", "http://c", accepted=False)
    health.sent("traces", "http://c", accepted=True)
    assert health.failing
    assert [call.args[0] for call in log.calls] == ["telemetry_unavailable"]
    health.sent("metrics", "http://c", accepted=True)
    assert [call.args[0] for call in log.calls] == ["telemetry_unavailable", "telemetry_available"]
    assert log.calls[-1].kwargs["lost_requests"] == 2


def test_one_signal_can_be_left_out(receiver: Receiver) -> None:
    """Where Prometheus scrapes, only the traces are needed."""
    exporting = Exporting(receiver.url, metrics_endpoint="none")
    exporting.send(1)
    exporting.run()
    exporting.close()
    assert receiver.spans
    assert receiver.metrics == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_METRIC_EXPORT_INTERVAL", "often"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")],
)
def test_a_wrong_variable_is_an_error_at_the_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default in its place would surprise the operator later."""
    monkeypatch.setenv(variable, value)
    threads = set(threading.enumerate())
    with pytest.raises(ConfigError, match="the export to OpenTelemetry cannot start"):
        Exporting("http://127.0.0.1:1")
    assert logging.getLogger("opentelemetry").propagate
    assert {thread.name for thread in set(threading.enumerate()) - threads} <= {
        "OtelBatchSpanRecordProcessor"
    }


def _settings(tmp_path: Path, otel: OtelSettings) -> Settings:
    return Settings(KafkaSettings(), WorkerSettings(state_dir=tmp_path, worker_id="w"), otel=otel)


def test_without_an_endpoint_nothing_is_observed(tmp_path: Path) -> None:
    """Off means that no code of the export runs for a commit."""
    with observed(declared_app(Sums().app), _settings(tmp_path, OtelSettings()), "a:b", None) as observers:
        assert observers is UNOBSERVED
    assert isinstance(UNOBSERVED.tracer, NoTracer)
    assert (UNOBSERVED.meter, UNOBSERVED.tracer.links, UNOBSERVED.tracer.propagates) == (None, 0, False)


def test_without_an_endpoint_the_library_is_not_loaded() -> None:
    """The import takes longer than the rest of a command."""
    code = (
        "import sys, pipeline.cli.worker, pipeline.processes.observers, pipeline.otel; "
        "print([name for name in sys.modules if name.split('.')[0] == 'opentelemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_endpoint_without_the_extra_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without its traces would be noticed when they are needed."""
    for name in [name for name in sys.modules if name.startswith("pipeline.otel.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = _settings(tmp_path, OtelSettings("http://127.0.0.1:4318"))
    with (
        pytest.raises(ConfigError, match="needs the extra `otel`") as raised,
        observed(declared_app(Sums().app), settings, "a:b", None),
    ):
        pass
    assert "pip install" in str(raised.value.hint)
    assert "opentelemetry-sdk" in str(raised.value.hint)


def test_an_export_without_an_http_port_has_all_metrics(receiver: Receiver, tmp_path: Path) -> None:
    """A worker behind a firewall has no port that could be scraped."""
    settings = _settings(tmp_path, OtelSettings(receiver.url))
    with observed(declared_app(Sums().app), settings, "a:b", None) as observers:
        assert observers.meter is not None
        assert observers.port is None
        observers.meter.fenced(Sums().task)
        assert observers.tracer.links == 8
    assert receiver.metrics


def test_each_source_of_an_endpoint_switches_the_export_on(tmp_path: Path) -> None:
    """The standard variables are set by operators, ours and the file by the owner of the app."""
    file = tmp_path / "pipeline.toml"
    file.write_text('[otel]\nendpoint = "http://file:4318/"\npropagate = true\n')
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:4318"}
    ours = {"PIPELINE_OTEL_ENDPOINT": "http://ours:4318"}

    def url(environ: dict[str, str]) -> str:
        return load_settings(file=file, environ=environ).otel.traces_url

    assert url({}) == "http://file:4318/v1/traces"
    assert url(standard) == "http://standard:4318/v1/traces"
    assert url(standard | ours) == "http://ours:4318/v1/traces"
    assert url(ours | {"OTEL_SDK_DISABLED": "true"}) == ""
    assert url(ours | {"OTEL_TRACES_EXPORTER": "none"}) == ""
    whole = load_settings(file=file, environ={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}).otel
    assert (whole.traces_url, whole.metrics_url) == ("http://t/x", "http://file:4318/v1/metrics")
    assert whole.propagate


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "otel.endpoint is 'collector:4317'"),
        ({"PIPELINE_OTEL_ENDPOINT": "http://me:secret@collector"}, "otel.endpoint contains a password"),
        ({"PIPELINE_OTEL_ENDPOINT": "none"}, "otel.endpoint is 'none'"),
        (
            {"PIPELINE_OTEL_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'",
        ),
        ({"PIPELINE_OTEL_PROPAGATE": "perhaps"}, "it must be true or false"),
    ],
)
def test_a_wrong_setting_names_its_source(environ: dict[str, str], message: str) -> None:
    """Several places can set an endpoint, and a password must not reach the log."""
    with pytest.raises(ConfigError, match=message) as raised:
        load_settings(environ=environ)
    assert raised.value.hint
    assert "secret" not in str(raised.value)

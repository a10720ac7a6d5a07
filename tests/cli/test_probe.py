"""`pipeline probe`: the health check of an image without curl must tell a live worker from every other state."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest

from pipeline.broker.ports import choose_ports
from pipeline.http.server import HttpServer
from tests.cli.conftest import Run

# This process may not run for seconds on a busy machine.
PATIENT = ("--timeout-s", "50")
_STUCK = b'{"live": false, "error": "no progress for at least 31 s", "hint": "find the handler"}'


class _Worker:
    """Answers like a worker: live, and not ready."""

    def __init__(self) -> None:
        self.live = (b"200 OK", b'{"live": true}')
        self.asked: list[str] = []
        self._server = HttpServer(self._answer, "127.0.0.1", 0)
        self._server.start()

    @property
    def port(self) -> str:
        return str(self._server.port)

    def close(self) -> None:
        self._server.stop()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = str(environ["PATH_INFO"])
        self.asked.append(path)
        status, body = (
            self.live if path == "/livez" else (b"503 Service Unavailable", b'{"error": "restoring"}')
        )
        start(status.decode(), [("Content-Type", "application/json")])
        return [body]


@pytest.fixture
def worker() -> Iterator[_Worker]:
    """The HTTP port of a worker."""
    with closing(_Worker()) as worker:
        yield worker


def test_a_live_worker_passes_the_probe(pipeline: Run, worker: _Worker) -> None:
    """It asks /livez at the port of the settings, although the worker listens on every address."""
    done = pipeline("probe", *PATIENT, code=0, PIPELINE_HTTP_HOST="0.0.0.0", PIPELINE_HTTP_PORT=worker.port)  # noqa: S104
    assert done.stdout == "live\n"
    assert worker.asked == ["/livez"]


def test_a_stuck_worker_fails_with_its_own_reason(pipeline: Run, worker: _Worker) -> None:
    """`docker inspect` shows the output of a failed health check."""
    worker.live = (b"503 Service Unavailable", _STUCK)
    done = pipeline("probe", *PATIENT, "--http-port", worker.port, code=1)
    assert "the worker is not live: no progress for at least 31 s" in done.stderr
    assert "find the handler" in done.stderr


def test_a_worker_can_be_live_and_not_ready(pipeline: Run, worker: _Worker) -> None:
    """A script that waits for the tasks asks for more than a health check does."""
    done = pipeline("probe", "ready", *PATIENT, code=1, PIPELINE_HTTP_PORT=worker.port)
    assert "the worker is not ready: restoring" in done.stderr
    assert worker.asked == ["/readyz"]


def test_no_worker_fails_the_probe(pipeline: Run) -> None:
    """Nothing listens: the container is not healthy."""
    port = str(choose_ports(1)[0])
    done = pipeline("probe", code=1, PIPELINE_HTTP_PORT=port)
    assert f"http://127.0.0.1:{port}/livez: no answer" in done.stderr


def test_a_port_that_never_answers_fails_the_probe(pipeline: Run) -> None:
    """A health check that waits without a limit reports nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        done = pipeline("probe", "--timeout-s", "0.2", code=1, PIPELINE_HTTP_PORT=port)
    assert "no answer within 0.2 s" in done.stderr


def test_another_server_fails_the_probe(pipeline: Run, worker: _Worker) -> None:
    """A status of 200 alone does not show that a worker has the port."""
    worker.live = (b"200 OK", b"<html>hello</html>")
    done = pipeline("probe", *PATIENT, "--http-port", worker.port, code=1)
    assert "no answer" in done.stderr


def test_a_worker_without_a_port_fails_the_probe(pipeline: Run) -> None:
    """A health check of nothing must not be green."""
    done = pipeline("probe", code=1)
    assert "http.port is not set" in done.stderr
    assert "PIPELINE_HTTP_PORT" in done.stderr

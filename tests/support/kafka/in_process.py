"""A worker in the test's process, so that a test can run code at its steps."""

from __future__ import annotations

import importlib.util
import sys
import time

import pytest
import structlog

from pipeline import App
from pipeline.app import declared_app
from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.ports import Steps
from pipeline.processes.wiring import build_environment
from pipeline.runtime.worker import Worker
from tests.support.kafka.harness import DEADLINE_S, Workbench

__all__ = ["InProcess", "sums_app"]


class InProcess:
    """A worker of the sums app on the bench's topics and state directory, to be closed."""

    def __init__(
        self, app: App, bench: Workbench, servers: str, steps: Steps, settings: WorkerSettings
    ) -> None:
        self._bench = bench
        self._log = structlog.testing.CapturingLogger()
        declared = declared_app(app)
        world = build_environment(
            declared, Settings(KafkaSettings(servers), settings), steps=steps, log=self._log
        )
        self.worker = Worker(declared, world, settings)

    def process(self, count: int, rounds: int) -> None:
        """Run from start to stop.

        In each round, send `count` inputs, at least one commit, and wait until they are committed.
        """
        self.worker.start()
        for _ in range(rounds):
            self._bench.send(count)
            self._run_until_committed()
        self.worker.stop()

    def _run_until_committed(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self._committed() < 2 * len(self._bench.sent):  # by two groups
            self.worker.step()
            assert not self.worker.failures, f"{self.worker.failures}\n{self.log}"
            assert time.monotonic() < deadline, self.log

    @property
    def log(self) -> str:
        """The worker's log, a line for each event."""
        return "\n".join(f"{call.method_name} {call.args} {call.kwargs}" for call in self._log.calls)

    def close(self) -> None:
        self.worker.close()

    def _committed(self) -> int:
        tasks = [task for run in self.worker.runs for task in run.tasks.values()]
        return sum(sum(task.applied.positions.values()) for task in tasks)


def sums_app(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> App:
    """The app of tests/support/kafka/sums.py on these topics. It reads its names from the environment on import."""
    for name, value in bench.names().items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.find_spec("tests.support.kafka.sums")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tests.support.kafka.sums", module)
    spec.loader.exec_module(module)
    app = module.app
    assert isinstance(app, App)
    return app

"""A live app for drills: two workers of the sums app, input that does not end, and `pipeline drill` as a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pipeline.drills.intent import Intent, IntentFile
from pipeline.drills.network_faults import ProxyPlace
from pipeline.drills.report import Report
from pipeline.drills.reports import Reports
from pipeline.drills.workers import holder_of
from tests.support.kafka.fleet_harness import FleetBench
from tests.support.kafka.harness import MARKERS_S, Workbench
from tests.support.pages import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tools.drill_index import KEEP_REPORTS

__all__ = ["LiveApp"]

PARTITIONS = 4
_COMMAND_S = 170
_START_S = 120.0  # of two workers, and of a driller, on a busy machine
_SETTINGS = """[kafka]
"bootstrap.servers" = "{servers}"

[worker]
checkpoint_store = "{store}"

[drills]
allow = ["{app}"]
poison_topics = ["{app}-amounts"]
directory = "{directory}"
steady_s = 2
timeout_s = {timeout_s}
rto_s = 50
"""


class LiveApp:
    """Workers `a` and `b`, and a thread that sends inputs. `close` ends all that the test and its drills started.

    `package`: the directory of the package that the workers run, if it is not this one. `proxied`: the workers that
    reach Kafka through a proxy of `pipeline drill proxy`.
    """

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        *,
        package: Path | None = None,
        timeout_s: int = 60,
        proxied: Sequence[str] = (),
        checkpoint_s: int = 3,
        tasks: int = PARTITIONS,
    ) -> None:
        self.name = prefix
        self.directory = directory
        self.store = directory / "checkpoints"
        self.store.mkdir()
        os.environ["PIPELINE_CHECKPOINT_STORE"] = self.store.as_uri()
        os.environ["PIPELINE_CHECKPOINT_INTERVAL_S"] = str(checkpoint_s)
        os.environ["SUMS_LETTERS"] = "1"
        self.bench = Workbench(
            servers, prefix, directory, groups=("main",), partitions=PARTITIONS, tasks=tasks
        )
        self.fleet = FleetBench(self.bench, directory)
        self.drills = directory / "drills"
        (directory / "pipeline.toml").write_text(
            _SETTINGS.format(
                servers=servers,
                store=self.store.as_uri(),
                app=prefix,
                directory=self.drills,
                timeout_s=timeout_s,
            )
        )
        self.fleet.package = package
        self.proxy = self._start_proxy() if proxied else None
        for worker in proxied:
            self.fleet.servers[worker] = self._proxy_servers()
        try:
            for worker in ("a", "b"):
                self.fleet.start(worker)
            self.fleet.wait_for_rest(_START_S)
        except BaseException:
            self.fleet.close()
            raise
        self._ended = threading.Event()
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def _start_proxy(self) -> subprocess.Popen[str]:
        self._proxy_port = free_port()
        return self.start("proxy", "--port", str(self._proxy_port))

    def _proxy_servers(self) -> str:
        place = ProxyPlace.of_port(self.drills, self._proxy_port)
        self.wait_for(lambda: place.note() is not None)
        note = place.note()
        assert note is not None
        return note.servers

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `pipeline drill ARGUMENTS`."""
        return self._start_command("drill", *arguments, **environment)

    def _start_command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_CHECKPOINT")
        }
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                **self.bench.names(),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run `pipeline drill ARGUMENTS` to its end, and return what it printed."""
        return self.run_command("drill", *arguments, code=code, **environment)

    def run_command(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run `pipeline ARGUMENTS` to its end, and return what it printed."""
        process = self._start_command(*arguments, **environment)
        try:
            said, _ = process.communicate(timeout=_COMMAND_S)
        finally:
            process.kill()
        assert process.returncode == code, (
            f"{arguments}: exit {process.returncode}\n{said}\n{self.fleet.story()}"
        )
        return said

    def report(self) -> Report:
        """The last report."""
        files = sorted((self.drills / "reports").glob("*.json"), key=lambda file: file.stat().st_mtime)
        return msgspec.json.decode(files[-1].read_bytes(), type=Report)

    def intent(self) -> Intent | None:
        """The open intent."""
        return IntentFile(self.drills, self.name).read()

    def place(self, worker: str) -> Path:
        """`<state_dir>/<app>` of a worker."""
        return self.directory / "disks" / worker / self.name

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, with the logs of the workers in the error."""
        wait_until(condition, self.fleet.story, _START_S)

    def finish(self) -> None:
        """Stop the input, wait for all outputs, and compare them with the fold over the inputs."""
        self._stop_sending()
        self.wait_for(lambda: self.bench.outputs() == self.bench.expected())
        self.bench.checker.check(settle_s=MARKERS_S)

    def close(self) -> None:
        """End the workers, also those that drills have started: they hold locks of the test's state directories."""
        self._stop_sending()
        self._keep_reports()
        for place in (*(self.directory / "disks").glob("*/*"), *self.drills.glob("state-*/*")):
            process = holder_of(place)
            if process is not None:
                process.send(signal.SIGCONT)
                process.send(signal.SIGKILL)
        self.fleet.close()
        if self.proxy is not None:
            self.proxy.terminate()
            self.proxy.communicate(timeout=_COMMAND_S)
        self.bench.close()
        for name in ("PIPELINE_CHECKPOINT_STORE", "PIPELINE_CHECKPOINT_INTERVAL_S", "SUMS_LETTERS"):
            os.environ.pop(name, None)

    def _keep_reports(self) -> None:
        """Copy the reports to where `make drills` lists them."""
        kept = os.environ.get(KEEP_REPORTS)
        if kept:
            target = Reports(Path(kept)).directory
            target.mkdir(parents=True, exist_ok=True)
            for report in Reports(self.drills).directory.glob("*.json"):
                shutil.copy(report, target)

    def _stop_sending(self) -> None:
        self._ended.set()
        self._sender.join()

    def _send(self) -> None:
        while not self._ended.wait(0.1):
            self.bench.send(20)

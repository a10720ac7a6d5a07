"""`pipeline demo` as a process: its result, its exit code, and what it leaves behind."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.broker import BrokerError, LocalKafka
from pipeline.cli import demo as command
from pipeline.cli.main import assemble
from pipeline.demo import run
from pipeline.demo.processes import Ended, ended_by_signals
from pipeline.demo.run import Demo, run_demo
from tests.support.walkthrough import environment_of_a_reader

_RUN_S = 350  # of the command, which needs about 30 s on a free machine


def _start(directory: Path) -> subprocess.Popen[str]:
    """A demonstration whose temporary directory is below `directory`, in an empty working directory."""
    (directory / "tmp").mkdir()
    (directory / "work").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", "--seconds", "4", "--seed", "7"],
        cwd=directory / "work",
        env={**environment_of_a_reader(), "TMPDIR": str(directory / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _processes(directory: Path) -> list[str]:
    """Processes whose command line names the directory."""
    return [
        line
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(directory) in (line := _read(path).replace("\0", " "))
    ]


def _left(directory: Path) -> list[str]:
    """Processes whose command line names the directory, and files in it."""
    return _processes(directory) + [
        str(path) for part in ("tmp", "work") for path in (directory / part).iterdir()
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_demo_is_exact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """It is the first thing that a user sees, on the user's own machine."""
    process = _start(tmp_path)
    said, _ = process.communicate(timeout=_RUN_S)
    assert process.returncode == 0, said
    last = said.splitlines()[-1]
    found = re.fullmatch(r"demo: 6000 events, (\d+) kills, 0 lost, 0 duplicated, \d+ s", last)
    assert found, said
    assert int(found[1]) >= 1
    assert re.search(r"^output records +6,000 +6,000 +0 +0 +0$", said, re.MULTILINE)
    assert re.search(r"^table rows +200 +200 +0 +0 +0$", said, re.MULTILINE)
    assert _left(tmp_path) == []


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    """A Kafka and three workers that keep running would slow down the user's machine."""
    process = _start(tmp_path)
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if line.startswith("3 workers share"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert _left(tmp_path) == []


@pytest.mark.parametrize(("exact", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_whether_results_are_exact(
    exact: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script, such as the release check, reads only the exit code."""
    monkeypatch.setattr(command, "run_demo", lambda *_: exact)
    assert CliRunner().invoke(assemble(), ["demo"]).exit_code == code


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the demonstrations of a test create their temporary directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _run_in_this_process(start: Callable[[LocalKafka], None]) -> tuple[type[BaseException], str]:
    """The error of a demonstration, and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - the caller compares it
        run_demo(Demo(seconds=3, seed=7), console, start)
    assert isinstance(console.file, io.StringIO)
    return raised.type, console.file.getvalue()


def _start_kafka(kafka: LocalKafka) -> None:
    kafka.start()


def _fail(error: BaseException, *, log: bool) -> Callable[[LocalKafka], None]:
    def start(kafka: LocalKafka) -> None:
        if log:
            kafka.data_dir.mkdir()
            (kafka.data_dir / "broker.log").write_text("the cause")
        raise error

    return start


def test_a_failure_keeps_the_logs_and_names_their_directory(temporary: Path) -> None:
    """The failure may be rare, so its cause must not be deleted."""
    kind, said = _run_in_this_process(_fail(BrokerError("no"), log=True))
    (kept,) = temporary.iterdir()
    assert kind is BrokerError
    assert said == f"kept, with the logs of all processes: {kept}\n"
    assert (kept / "kafka" / "broker.log").read_text() == "the cause"


@pytest.mark.parametrize("moment", ["Kafka is stopped", "the directory is deleted"])
def test_a_signal_during_the_cleanup_does_not_end_it(
    moment: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal may arrive when all is done, and would leave a Kafka and its data behind."""
    done: list[str] = []

    def note(step: str) -> None:
        if step == moment:
            signal.raise_signal(signal.SIGTERM)
        done.append(step)

    def stop(_kafka: LocalKafka) -> bool:
        note("Kafka is stopped")
        return True

    def remove(directory: Path, **_: object) -> None:
        note("the directory is deleted")
        remove_directory(directory)

    remove_directory = shutil.rmtree
    monkeypatch.setattr(LocalKafka, "stop", stop)
    monkeypatch.setattr(shutil, "rmtree", remove)
    with ended_by_signals():
        kind, _ = _run_in_this_process(_fail(BrokerError("no"), log=False))
    assert kind is Ended
    assert done == ["Kafka is stopped", "the directory is deleted"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("error", "log"), [(BrokerError("no"), False), (Ended(signal.SIGINT), True)])
def test_nothing_is_kept_without_logs_or_after_a_signal(
    error: BaseException, log: bool, temporary: Path
) -> None:
    """The user ended it, or there is nothing to read: a directory in /tmp would only be litter."""
    kind, said = _run_in_this_process(_fail(error, log=log))
    assert kind is type(error)
    assert said == ""
    assert list(temporary.iterdir()) == []


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_demo_without_progress_keeps_the_logs_of_its_workers(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot start is the usual reason, and only its log says why."""
    monkeypatch.setattr(run, "IDLE_S", 0.0)
    kind, _said = _run_in_this_process(_start_kafka)
    assert kind is run.NoProgressError
    (kept,) = temporary.iterdir()
    assert sorted(path.name for path in kept.glob("worker-*.log")) == [
        "worker-a-0.log",
        "worker-b-1.log",
        "worker-c-2.log",
    ]
    assert _processes(temporary) == []

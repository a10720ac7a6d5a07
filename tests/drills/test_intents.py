"""What a drill notes before each change, and how each change is undone."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import pipeline.drills.intent
from pipeline.drills.intent import (
    ContinueProcess,
    EndProcess,
    IntentFile,
    MoveBack,
    RemovePath,
    RestoreFile,
    StartWorker,
    undo,
)
from pipeline.drills.reports import Reports
from pipeline.drills.workers import LocalWorker, Process, holder_of, start_worker, starting_at
from pipeline.errors import InputError
from pipeline.ports import SystemClock
from pipeline.processes.system import process_stat
from pipeline.testing import ManualClock
from tests.support.waiting import wait_until

CLOCK = SystemClock()


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The runner restores what it has changed after such an error, and not after an OSError."""
    place = tmp_path / "drills"
    place.touch()
    file = IntentFile(place, "shop")
    intent = file.new("kill-worker-1", "kill-worker", "shop", "kafka:9092", CLOCK)
    with pytest.raises(InputError, match="cannot use the directory of drills") as refused:
        file.begin(intent)
    assert "drills.directory" in (refused.value.hint or "")
    place.unlink()
    file.begin(intent)
    place.rename(tmp_path / "away")
    with pytest.raises(InputError, match="cannot use the directory of drills"):
        file.add(RemovePath("/nowhere"))


def test_a_directory_that_cannot_be_read_has_an_unknown_intent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not look as if no drill were open."""

    def refuse(_path: Path, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        IntentFile(tmp_path, "shop").read()
    with pytest.raises(InputError, match="Permission denied"):
        Reports(tmp_path).files()


# A program that holds the lock of a state directory, as a worker does.
HOLDER = """
import fcntl, os, sys, time
os.makedirs(sys.argv[1], exist_ok=True)
file = os.open(sys.argv[1] + "/.worker", os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.ftruncate(file, 0)
os.pwrite(file, str(os.getpid()).encode(), 0)
time.sleep(60)
"""


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A process that does nothing."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield Process.of(child.pid)
    child.kill()
    child.wait()


def test_a_step_is_on_disk_before_the_change_is_made(tmp_path: Path, sleeper: Process) -> None:
    """After a SIGKILL of the driller, only the file knows what to undo."""
    file = IntentFile(tmp_path / "drills", "shop")
    file.begin(file.new("kill-worker-1", "kill-worker", "shop", "kafka:9092", CLOCK))
    steps = (
        MoveBack("/a.drill-1", "/a"),
        ContinueProcess("a", sleeper),
        StartWorker("a", "/state/shop", ["pipeline"], "/", {"SECRET": "1"}, "/log"),
    )
    for step in steps:
        file.add(step)
    read = IntentFile(tmp_path / "drills", "shop").read()
    assert read is not None
    assert read.steps == steps
    assert read.driller == Process.of(os.getpid())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600  # it has the worker's environment
    file.end()
    assert IntentFile(tmp_path / "drills", "shop").read() is None


def test_an_intent_of_another_release_is_not_deleted(tmp_path: Path) -> None:
    """What it names must be restored by an operator."""
    file = IntentFile(tmp_path, "shop")
    file.path.write_text('{"version": 99}')
    with pytest.raises(InputError, match="cannot be understood"):
        file.read()
    assert file.path.exists()


def test_steps_are_undone_in_reverse_and_a_failure_stops_none(tmp_path: Path) -> None:
    """One change that cannot be undone must not leave the others in place."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    second.touch()
    file = IntentFile(tmp_path, "shop")
    file.begin(file.new("x-1", "x", "shop", "kafka:9092", CLOCK))
    (tmp_path / "source").mkdir()
    missing = tmp_path / "missing" / "target"
    for step in (
        RemovePath(str(first)),
        MoveBack(str(tmp_path / "source"), str(missing)),
        RemovePath(str(second)),
    ):
        file.add(step)
    intent = file.read()
    assert intent is not None
    found = list(undo(intent, CLOCK))
    assert [each.failed for each in found] == [False, True, False]
    assert found[0].what == f"delete {second}"
    assert not first.exists()
    assert not second.exists()


def test_every_step_can_be_undone_twice(tmp_path: Path, sleeper: Process) -> None:
    """`undo` may be killed, too."""
    moved, damaged = tmp_path / "moved", tmp_path / "object"
    (tmp_path / "moved.drill-1").mkdir()
    moved.touch()  # the file that keeps a store from being created
    damaged.write_bytes(b"damaged")
    (tmp_path / "backup").write_bytes(b"whole")
    steps = (
        MoveBack(str(tmp_path / "moved.drill-1"), str(moved)),
        RestoreFile(str(tmp_path / "backup"), str(damaged)),
        RemovePath(str(tmp_path / "absent")),
        ContinueProcess("a", sleeper),
        EndProcess("a", str(tmp_path / "state" / "shop")),
    )
    for _ in range(2):
        for step in steps:
            step.undo(CLOCK)
    assert moved.is_dir()
    assert damaged.read_bytes() == b"whole"
    assert not (tmp_path / "backup").exists()


def test_a_new_state_directory_is_kept_and_the_old_one_deleted(tmp_path: Path) -> None:
    """The worker runs on the new one; the old one would be a leftover."""
    old, new = tmp_path / "shop.drill-1", tmp_path / "shop"
    old.mkdir()
    new.mkdir()
    (new / "kept").touch()
    MoveBack(str(old), str(new)).undo(CLOCK)
    assert (new / "kept").exists()
    assert not old.exists()


def _refuse_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the start of a worker fails the test."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a second worker is started")

    monkeypatch.setattr(pipeline.drills.intent, "start_worker", refuse)


def test_a_worker_is_started_only_if_nothing_holds_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with one worker id would take the tasks from each other."""
    place = tmp_path / "state" / "shop"
    command = [sys.executable, "-c", HOLDER, str(place)]
    step = StartWorker("a", str(place), command, str(tmp_path), dict(os.environ), str(tmp_path / "log"))
    assert step.undo(CLOCK).startswith("started as process")
    process = holder_of(place)
    assert process is not None
    _refuse_starts(monkeypatch)
    try:
        assert step.undo(CLOCK) == f"runs as process {process.pid}"
        assert EndProcess("a", str(place)).undo(CLOCK) == "stopped"
        wait_until(lambda: holder_of(place) is None, lambda: "it still runs")
    finally:
        process.send(signal.SIGKILL)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[StartWorker]:
    """The start of a worker that locks its directory only when the file `go` exists."""
    place = tmp_path / "state" / "shop"
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
    command = [sys.executable, "-c", wait + HOLDER, str(place)]
    yield StartWorker("a", str(place), command, str(tmp_path), dict(os.environ), str(tmp_path / "log"))
    for process in (holder_of(place), starting_at(place, CLOCK)):
        if process is not None:
            process.send(signal.SIGKILL)


def _start(step: StartWorker) -> Process:
    """What a driller does before it is killed."""
    place = Path(step.place)
    return start_worker(step.command, Path(step.directory), step.environment, Path(step.log), place=place)


def test_a_worker_that_is_starting_is_not_started_again(
    tmp_path: Path, waiting: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driller that started it was killed. A second one would end, because the directory is locked."""
    first = _start(waiting)
    _refuse_starts(monkeypatch)

    class Clock(SystemClock):
        """The first pause lets the worker continue."""

        def sleep(self, seconds: float) -> None:
            (tmp_path / "go").touch()
            super().sleep(seconds)

    assert waiting.undo(Clock()) == f"runs as process {first.pid}"
    assert holder_of(Path(waiting.place)) == first


def test_a_worker_that_another_process_keeps_from_starting_is_not_missing(
    tmp_path: Path, waiting: StartWorker
) -> None:
    """An operator, or a supervisor, was faster: the app has its worker."""
    (tmp_path / "go").touch()
    script = '"$@" & until grep -q . "$0/.worker"; do sleep 0.01; done; exit 1'
    held = msgspec.structs.replace(
        waiting, command=["/bin/sh", "-c", script, waiting.place, *waiting.command]
    )
    assert held.undo(CLOCK).startswith("runs as process")
    assert holder_of(Path(waiting.place)) is not None


def test_a_worker_whose_program_is_being_loaded_is_found(
    waiting: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux shows no variables of a process while the shell that a driller has started becomes the worker."""
    started = _start(waiting)
    environment = Path(f"/proc/{started.pid}/environ")
    wait_until(environment.read_bytes, lambda: "the environment")
    read, hidden = Path.read_bytes, [True] * 3

    def read_bytes(path: Path) -> bytes:
        if path == environment and hidden:
            hidden.pop()
            return b""
        return read(path)

    def stat(pid: int) -> list[str]:
        fields = process_stat(pid)
        if pid == started.pid and hidden:
            fields[48] = "0"  # the end of the environment
        return fields

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr("pipeline.drills.workers.process_stat", stat)
    assert starting_at(Path(waiting.place), CLOCK) == started
    assert not hidden


def test_a_worker_that_is_starting_is_ended(waiting: StartWorker) -> None:
    """It would join the app after the drill was undone."""
    started = _start(waiting)
    step = EndProcess(waiting.worker, waiting.place)
    assert step.undo(CLOCK) == "stopped"
    assert not started.alive
    assert step.undo(CLOCK) == "does not run"


def test_a_program_of_a_handler_is_not_taken_for_the_worker(tmp_path: Path, waiting: StartWorker) -> None:
    """It has the environment of the worker, and survives it."""
    script = f"sleep 60 & echo $! > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/child && wait"
    shell = msgspec.structs.replace(waiting, command=["/bin/sh", "-c", script])
    started = _start(shell)
    wait_until((tmp_path / "child").exists, lambda: "the id of the child")
    child = Process.of(int((tmp_path / "child").read_text()))
    try:
        assert starting_at(Path(waiting.place), CLOCK) == started
        started.send(signal.SIGKILL)
        wait_until(lambda: not started.alive, lambda: "the shell still runs")
        assert child.alive
        assert starting_at(Path(waiting.place), CLOCK) is None
    finally:
        child.send(signal.SIGKILL)


def test_a_worker_that_ends_at_its_start_is_reported(tmp_path: Path) -> None:
    """The operator must read its log instead of waiting for it."""
    step = StartWorker("a", str(tmp_path / "s" / "shop"), ["/bin/false"], "/", {}, str(tmp_path / "log"))
    with pytest.raises(InputError, match="worker a ended at its start"):
        step.undo(CLOCK)


class _Impatient(ManualClock):
    """Each pause is a minute."""

    def sleep(self, seconds: float) -> None:
        super().sleep(60.0 + seconds)


def test_a_worker_that_claims_no_directory_is_not_waited_for(tmp_path: Path) -> None:
    """It hangs, or it is another program. The operator must read its log."""
    told = tmp_path / "pid"
    command = ["/bin/sh", "-c", f"echo $$ > {told}.new && mv {told}.new {told} && exec sleep 60"]
    step = StartWorker(
        "a", str(tmp_path / "s" / "shop"), command, "/", dict(os.environ), str(tmp_path / "log")
    )
    with pytest.raises(InputError, match="worker a did not start in 60 s") as caught:
        step.undo(_Impatient())
    assert caught.value.hint == f"read {tmp_path / 'log'}"
    wait_until(told.exists, lambda: "the id of the process")
    os.kill(int(told.read_text()), signal.SIGKILL)


def test_a_worker_whose_log_cannot_be_opened_is_not_started(tmp_path: Path) -> None:
    """The operator can still start it."""
    step = StartWorker("a", str(tmp_path / "s" / "shop"), ["pipeline"], "/", {}, str(tmp_path / "no" / "log"))
    with pytest.raises(InputError, match="cannot start pipeline: No such file or directory") as caught:
        step.undo(CLOCK)
    assert caught.value.hint == "start the worker yourself"


def test_a_worker_that_has_ended_has_no_environment(tmp_path: Path) -> None:
    """A drill would start it again without its settings."""
    ended = Process(2**22 + 1, 1)  # no process has such an id
    worker = LocalWorker("a", "1-a", ended, tmp_path, ["pipeline"], Path("/"), None, supervised=False)
    with pytest.raises(InputError, match=r"worker a .* has just ended"):
        worker.environment()


def test_a_reused_process_id_gets_no_signal(sleeper: Process) -> None:
    """A drill ends only processes that it has identified."""
    other = Process(sleeper.pid, sleeper.started - 1)
    assert not other.alive
    assert not other.send(signal.SIGKILL)
    assert sleeper.alive


def test_a_process_that_has_ended_before_it_was_seen_is_not_alive() -> None:
    """A worker that ends at once would be waited for until the time-out."""
    assert not Process(2**22 + 1, -1).alive  # no process has such an id
    assert not Process(2**22 + 1, -1).stopped

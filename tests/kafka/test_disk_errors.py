"""Errors of the state directory: each message has the cause, the place and the next step, and no data is lost.

Every test checks the text that an operator gets, fixes the cause, and compares outputs and tables with a fold.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka.troubled_harness import TroubledBench

pytestmark = pytest.mark.kafka


def _files(troubled: TroubledBench) -> Path:
    """The state directory of task main/0."""
    return troubled.state_dir / troubled.prefix / "main" / "0"


def _flip_a_byte(directory: Path) -> None:
    """Damage a file among the values, far from the position that a start reads."""
    table = max(directory.glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 0xFF
    table.write_bytes(content)


def _empty_current(directory: Path) -> None:
    (directory / "CURRENT").write_bytes(b"")


def _delete_manifest(directory: Path) -> None:
    for manifest in directory.glob("MANIFEST-*"):
        manifest.unlink()


@pytest.mark.parametrize("damage", [_empty_current, _delete_manifest])
def test_a_damaged_state_is_set_aside_and_restored_from_the_journal(
    troubled: TroubledBench, damage: object
) -> None:
    """The state is a cache: damage costs only time, and the warning names the directory of the damaged state."""
    assert callable(damage)
    troubled.send(200)
    troubled.finish()
    damage(_files(troubled))
    troubled.send(100)
    troubled.finish()
    [warning] = troubled.events("local_state_set_aside")
    kept = Path(warning["path"])
    assert kept == _files(troubled).with_name("0.aside-1")
    assert kept.is_dir()
    assert str(_files(troubled)) in warning["reason"]
    assert (warning["app"], warning["group"], warning["task"]) == (troubled.prefix, "main", 0)


def test_a_flipped_byte_is_found_by_the_handler_that_reads_it_and_costs_nothing(
    troubled: TroubledBench,
) -> None:
    """A start does not read every block, so a running worker must detect damage and restore the task."""
    troubled.send(4_000, keys=4_000)
    troubled.finish()
    troubled.finish()  # its start writes the contents of the write-ahead log to a table file
    _flip_a_byte(_files(troubled))
    troubled.send(4_000, keys=4_000)
    troubled.finish()
    [warning] = troubled.events("local_state_set_aside")
    assert f"the state {_files(troubled)} cannot be read: Corruption" in warning["reason"]
    assert Path(warning["path"]).is_dir()
    assert troubled.events("task_failed") == []


def test_a_state_directory_that_cannot_be_written_is_named_with_the_setting(troubled: TroubledBench) -> None:
    """A read-only mount, or a file instead of the directory, must be named in the error."""
    troubled.send(50)
    troubled.state_dir.write_text("in the way")
    said = troubled.refused().stderr
    assert f"cannot use the state directory {troubled.state_dir}: Not a directory" in said
    assert "choose a directory that this user can write, with --state-dir or worker.state_dir" in said
    troubled.state_dir.unlink()
    troubled.finish()


def test_an_unreadable_state_stops_only_its_task(troubled: TroubledBench) -> None:
    """The other tasks continue, and the error has the directory, the user and the permissions."""
    troubled.send(100)
    troubled.finish()
    directory = _files(troubled)
    directory.chmod(0o000)
    try:
        worker = troubled.restricted_worker()
        failed = troubled.wait_for_event("task_failed")
        assert f"{directory} has mode 0000" in failed["message"]
        assert "this process runs as" in failed["message"]
        assert failed["hint"].startswith("give user")
        troubled.wait_for_event("task_live", times=2 * troubled.partitions * len(troubled.groups) - 1)
        troubled.stop(worker)
        assert "Traceback" not in troubled.log.read_text()
    finally:
        directory.chmod(0o700)
    troubled.send(100)
    troubled.finish()


def _root(*command: str) -> str:
    """Run a system command. Returns its error output."""
    path = shutil.which(command[0])
    if os.geteuid() != 0 or path is None:
        return "it takes root"
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """The directories that the test mounted; they are unmounted at its end."""
    made: list[Path] = []
    yield made
    for directory in made:
        assert _root("umount", "-l", str(directory)) == ""


def _mount(mounted: list[Path], directory: Path, *arguments: str) -> None:
    complaint = _root("mount", *arguments, str(directory))
    if complaint:
        pytest.skip(f"nothing can be mounted here: {complaint}")
    if directory not in mounted:
        mounted.append(directory)


def _fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_a_state_directory_on_a_read_only_disk_is_named(troubled: TroubledBench, mounted: list[Path]) -> None:
    """Linux remounts a failing disk read-only: the worker must neither hang nor treat the state as damaged."""
    troubled.send(100)
    troubled.finish()
    _mount(mounted, troubled.state_dir, "--bind", str(troubled.state_dir))
    _mount(mounted, troubled.state_dir, "-o", "remount,bind,ro")
    said = troubled.refused().stderr
    assert f"cannot use the state directory {troubled.state_dir}: Read-only file system" in said
    assert "choose a directory that this user can write, with --state-dir or worker.state_dir" in said
    assert not list(troubled.state_dir.rglob("*.aside-*"))
    assert _root("umount", str(mounted.pop())) == ""
    troubled.send(100)
    troubled.finish()


def test_a_full_disk_stops_the_task_and_the_next_start_continues_once_there_is_space(
    troubled: TroubledBench, mounted: list[Path]
) -> None:
    """Commits that could not be applied are in the journal, and are applied after a restart with free space."""
    troubled.state_dir.mkdir()
    _mount(mounted, troubled.state_dir, "-t", "tmpfs", "-o", "size=12m", "tmpfs")
    troubled.send(200)
    worker = troubled.worker()
    troubled.wait_for_outputs(worker)
    ballast = troubled.state_dir / "ballast"
    _fill(ballast)
    troubled.send(5_000, keys=5_000)
    failed = troubled.wait_for_event("task_failed", times=2)
    assert f"the state {troubled.state_dir / troubled.prefix}" in failed["message"]
    assert "No space left on device" in failed["message"]
    assert failed["hint"] == "free space on that disk and start the worker again"
    if worker.poll() is None:
        troubled.stop(worker)
    assert worker.returncode == 1
    again = troubled.refused().stderr
    assert "No space left on device" in again
    ballast.unlink()
    troubled.finish()

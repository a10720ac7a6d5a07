"""State directories that this user may not read or write: an error with the path, the user and the permissions."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores

TASK = TaskId("app", "group", 3)

# Calls each operation on the state directory of a task, and prints its error.
CALLER = """
import json, sys
from pathlib import Path
from pipeline.core.names import TaskId
from pipeline.errors import PipelineError
from pipeline.rocksdb.rocks import RocksStores, state_directories
root, task = Path(sys.argv[1]), TaskId("app", "group", 3)
stores = RocksStores(root, 8 << 20)
stores.claim("app")  # lists the directories of the groups
assert stores.exists(TaskId("app", "other", 0)) is False
def staged():
    stage = stores.stage(task)
    stage.write("CURRENT", [b"x"])
    stage.install()
found = {}
for name, call in {
    "exists": lambda: stores.exists(task),
    "open": lambda: stores.open(task),
    "open_read_only": lambda: stores.open_read_only(task),
    "put_away": lambda: stores.put_away(task),
    "destroy": lambda: stores.destroy(task),
    "set_aside": lambda: stores.set_aside(task),
    "stage": staged,
    "partitions": lambda: stores.partitions(task.group_id),
}.items():
    try:
        call()
    except PipelineError as error:
        found[name] = [type(error).__name__, error.message, error.hint]
print(json.dumps(found))
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The directory of a state. Its permissions, and those of its parent, are restored at the end."""
    stores = RocksStores(tmp_path, 8 << 20)
    store = stores.open(TASK)
    store.apply({b"\0\0\0\1a": b"1"}, b"p1")
    store.close()
    path = stores.path(TASK)
    yield path
    for directory in (path.parent, path):
        if directory.exists():
            directory.chmod(0o700)


def _errors(root: Path) -> dict[str, tuple[str, str, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.unprivileged", "-c", CALLER, str(root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, tuple[str, str, str]])


def _check(errors: dict[str, tuple[str, str, str]], blocked: Path, mode: str, *names: str) -> None:
    user = getpass.getuser()
    for name in names:
        _, message, hint = errors[name]
        assert "Permission denied" in message, name
        assert f"{blocked} has mode {mode} and belongs to {user}; this process runs as {user}" in message, (
            name
        )
        assert (
            hint == f"give user {user} read and write access to {blocked} and what is below it: chown, chmod"
        )


def test_an_unreadable_state_is_named_with_user_and_mode(tmp_path: Path, state: Path) -> None:
    """A traceback or a hint about disk space would send the operator the wrong way."""
    state.chmod(0o000)
    errors = _errors(tmp_path)
    _check(errors, state, "0000", "exists", "open", "open_read_only", "put_away", "set_aside", "stage")
    assert "partitions" not in errors
    assert {kind for name, (kind, _, _) in errors.items() if name != "stage"} == {"ConfigError"}
    assert all(f"the state {state} of task" in errors[name][1] for name in ("exists", "open", "put_away"))


def test_an_unreadable_group_is_named_with_user_and_mode(tmp_path: Path, state: Path) -> None:
    """No path below such a directory can be examined, so the directory itself must be named."""
    state.parent.chmod(0o000)
    errors = _errors(tmp_path)
    assert len(errors) == 8
    _check(errors, state.parent, "0000", *errors)


def test_a_state_directory_without_write_permission_is_named(tmp_path: Path, state: Path) -> None:
    """A state that can be read, but not moved, is not damaged."""
    state.parent.chmod(0o500)
    errors = _errors(tmp_path)
    assert set(errors) == {"put_away", "destroy", "set_aside", "stage"}
    _check(errors, state.parent, "0500", *errors)

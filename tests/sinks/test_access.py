"""A SQLite file that this user may not write: one error with the permissions of the file and of its directory."""

from __future__ import annotations

import getpass
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.databases.sqlite import SqliteSession

# Opens a session and writes to the file, and prints the error.
WRITER = """
import sys
from pathlib import Path
from pipeline.databases.sqlite import SqliteSession
from pipeline.errors import SinkUnreachableError
step = "open"
try:
    session = SqliteSession(Path(sys.argv[1]), "Sqlite shop.db")
    step = "write"
    session.prepare()
    session.execute("INSERT INTO totals VALUES (1)")
except SinkUnreachableError as error:
    print(step, error.refused, error.message, error.hint, sep="|")
"""


@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "step"), [(0o444, 0o755, "open"), (0o644, 0o555, "write")]
)
def test_a_file_without_write_permission_is_refused_with_its_mode(
    tmp_path: Path, file_mode: int, directory_mode: int, step: str
) -> None:
    """Such a sink can write no row, and a hint about its schema would mislead."""
    directory = tmp_path / "data"
    directory.mkdir()
    file = directory / "shop.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE totals (id TEXT PRIMARY KEY)")
    with closing(SqliteSession(file, "Sqlite shop.db")) as session:
        session.prepare()  # an earlier run created its table
    file.chmod(file_mode)
    directory.chmod(directory_mode)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.unprivileged", "-c", WRITER, str(file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        directory.chmod(0o755)
    assert done.returncode == 0, done.stderr
    at, refused, message, hint = done.stdout.strip().split("|")
    user = getpass.getuser()
    assert (at, refused) == (step, "True")
    assert f"{file} has mode {file_mode:04o} and belongs to {user}" in message
    assert (
        f"{directory} has mode {directory_mode:04o} and belongs to {user}; this process runs as {user}"
        in message
    )
    assert hint.startswith(f"give user {user} write access to the file and its directory")

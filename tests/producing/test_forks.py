"""A producer that was made before a fork, as web servers with preloaded workers do."""

from __future__ import annotations

import subprocess
import sys


def test_a_child_has_a_client_of_its_own_and_never_sends_its_parents_events() -> None:
    """Neither an event twice, nor a child that hangs on a lock that a thread of its parent held."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.producing.fork_program"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    child, parent = done.stdout.splitlines()
    assert child == "child [2, 3]"
    assert parent.endswith("[1]")
    assert "Delivered(topic='numbers', partition=0, offset=0, id=b'p'" in parent

"""A child that a handler forks keeps nothing of the state directory, however long it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError
from pipeline.rocksdb.rocks import RocksStores
from tests.support.waiting import wait_until

WORKER = """
import multiprocessing, pathlib, sys, time
from pipeline.core.names import TaskId
from pipeline.rocksdb.crash_files import CrashFiles
from pipeline.rocksdb.rocks import RocksStores
root = pathlib.Path(sys.argv[1])
stores = RocksStores(root, 1 << 20)
stores.claim("app")
store = stores.open(TaskId("app", "main", 0))
log = CrashFiles(root)
log.previous("app")
log.begin("1-one")
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_that_outlives_a_killed_worker_holds_no_lock(tmp_path: Path) -> None:
    """The next start would be refused until the operator finds and stops the child process."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    with worker.stdout as output:
        child = int(output.readline())
    try:
        wait_until(lambda: not _held_by(child, tmp_path), lambda: str(_held_by(child, tmp_path)), within_s=30)
        with pytest.raises(ConfigError, match=f"process {worker.pid}"):
            RocksStores(tmp_path, 1 << 20).claim("app")
        worker.kill()
        worker.wait()
        stores = RocksStores(tmp_path, 1 << 20)
        stores.claim("app")
        stores.open(TaskId("app", "main", 0)).close()
        stores.release("app")
        assert _is_alive(child)
    finally:
        worker.kill()
        worker.wait()
        os.kill(child, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _held_by(pid: int, root: Path) -> list[str]:
    """Files by which a child could hold on to the directory or write into its crash log."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the child is closing it
            links.append(str(link.readlink()))
    return [link for link in links if link.startswith(str(root)) and link.endswith((".worker", "trace"))]

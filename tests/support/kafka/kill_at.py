"""A worker process that kills itself when it reaches a point of the protocol for the nth time.

python -m tests.support.kafka.kill_at POINT NTH TRIGGER BOOTSTRAP STATE_DIR

A point is the name of a `Step`, at which the process sends itself SIGKILL, or is inside a call:

    DURING_COMMIT   the commit request is in flight, and its answer is never handled: another thread sends
                    SIGKILL after NTH quarters of a millisecond
    DURING_APPLY    RocksDB's write to its log is cut short: the kernel ends the process during the write

The count starts when the file TRIGGER exists; with the TRIGGER -, at the start. KILL_APP, MODULE:APP, runs instead of
the sums app, as the worker KILL_WORKER. With KILL_WITH=SIGSTOP, the process stops itself there and can be continued.
With KILL_RESTING, the producers of its tasks are closed a moment after each commit.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path

from pipeline.cli.lookup import find_app
from pipeline.config import load_settings
from pipeline.core.names import TaskId
from pipeline.ports import Step
from pipeline.processes.wiring import build_worker, run_worker
from pipeline.runtime import idle_producers
from pipeline.runtime.restore import restore

__all__ = ["DURING_APPLY", "KillAt", "signal_of"]

DURING_APPLY = "DURING_APPLY"
_DURING_COMMIT = {Step.DURING_COMMIT, Step.SINK_DURING_COMMIT}
_SIGNAL = signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")]
COMMIT_QUARTER_S = 0.000_25
# Less than any batch, so that RocksDB's log contains a partial one.
TORN_BYTES = 20
# Small, so that the journals of tests are replayed in several batches.
REPLAY_BATCH_BYTES = 1_000


def signal_of(point: str) -> signal.Signals:
    """The signal that ends the process at a point."""
    return signal.SIGXFSZ if point == DURING_APPLY else signal.SIGKILL


class KillAt:
    """`ports.Steps` that ends the process at a point."""

    def __init__(self, point: str, nth: int, trigger: Path | None, state_dir: Path) -> None:
        self._point = point
        self._step = Step.BEFORE_APPLY if point == DURING_APPLY else Step[point]
        self._nth = self._left = nth
        self._trigger = trigger
        self._state_dir = state_dir
        self._lock = threading.Lock()
        self._ending: TaskId | None = None

    def reached(self, step: Step, task: TaskId) -> None:
        with self._lock:
            if self._ending == task and _SIGNAL is signal.SIGKILL:
                self._outlived()
            if (
                step is not self._step
                or self._ending
                or not (self._trigger is None or self._trigger.exists())
            ):
                return
            self._left -= 1
            if self._left == 0:
                self._ending = task
                self._end(task)

    def _end(self, task: TaskId) -> None:
        if self._point == DURING_APPLY:
            _limit_files(_log_of(self._state_dir / task.app / task.group / str(task.number)))
        elif self._step in _DURING_COMMIT:
            threading.Timer(self._nth * COMMIT_QUARTER_S, _kill).start()
        else:
            _kill()

    def _outlived(self) -> None:
        """The interrupted call has returned, which must not happen."""
        if self._step in _DURING_COMMIT:
            threading.Event().wait()  # the kill is coming, and the answer is not handled
        os.write(2, b"the write was not cut short\n")
        os._exit(3)


def _kill() -> None:
    os.kill(os.getpid(), _SIGNAL)


def _log_of(database: Path) -> Path:
    """The write-ahead log in use: the newest one."""
    return max(database.glob("*.log"), key=lambda path: int(path.stem))


def _limit_files(log: Path) -> None:
    """Limit the size of files: the kernel then cuts a longer write short and kills the process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + TORN_BYTES,) * 2)


def main() -> None:
    """Run until the kill at the point, or SIGTERM."""
    point, nth, trigger, servers, state_dir = sys.argv[1:]
    resting = "KILL_RESTING" in os.environ
    if resting:
        idle_producers.IDLE_S, idle_producers.KEPT = 0.0, 0
    settings = load_settings(
        {
            "bootstrap_servers": servers,
            "state_dir": state_dir,
            "worker_id": os.environ.get("KILL_WORKER", "killed"),
            "commit_interval_ms": 20,
            "check_interval_s": 0.1 if resting else 5.0,
        }
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    restore.REPLAY_BATCH_BYTES = REPLAY_BATCH_BYTES
    steps = KillAt(point, int(nth), None if trigger == "-" else Path(trigger), settings.worker.state_dir)
    app = find_app(os.environ.get("KILL_APP", "tests.support.kafka.sums:app"))
    run_worker(build_worker(app, settings, steps=steps), stop, settings.worker)


if __name__ == "__main__":
    main()

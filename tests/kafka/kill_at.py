"""A worker process that kills itself with SIGKILL at the nth time it reaches a named step.

python -m tests.kafka.kill_at STEP NTH BOOTSTRAP STATE_DIR
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from pipeline.config import KafkaSettings, Settings, WorkerSettings
from pipeline.core.names import TaskId
from pipeline.ports import Step
from pipeline.wiring import build_worker, run_worker
from tests.kafka.sums import app


class KillAt:
    """`ports.Steps` that ends the process as SIGKILL does."""

    def __init__(self, step: Step, nth: int) -> None:
        self._step = step
        self._left = nth
        self._lock = threading.Lock()

    def reached(self, step: Step, task: TaskId) -> None:
        if step is not self._step:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run until the kill, or SIGTERM."""
    step, nth, servers, state_dir = sys.argv[1:5]
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(state_dir=Path(state_dir), worker_id="killed", commit_interval_ms=20),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_worker(build_worker(app, settings, steps=KillAt(Step[step], int(nth))), stop, settings.worker)


if __name__ == "__main__":
    main()

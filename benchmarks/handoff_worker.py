"""One of the workers between which `handoff` moves a task: NAME SERVERS STATE_DIR WORKER_ID."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import NOT_DECLARED
from benchmarks.restart_app import make_app
from pipeline import KafkaSettings, Settings, WorkerSettings
from pipeline.app import declared_app
from pipeline.cli.logs import configure_logs
from pipeline.processes.wiring import run_app

if __name__ == "__main__":
    name, servers, state_dir, worker_id = sys.argv[1:]
    configure_logs("info")
    settings = Settings(
        KafkaSettings(servers),
        WorkerSettings(state_dir=Path(state_dir), worker_id=worker_id, topics_dir=NOT_DECLARED),
    )
    run_app(declared_app(make_app(name)), settings)

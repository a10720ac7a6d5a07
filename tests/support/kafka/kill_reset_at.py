"""`pipeline reset` of the whole app of `sums`, from the beginning. It kills itself at a point of the first task.

python -m tests.support.kafka.kill_reset_at POINT BOOTSTRAP
"""

from __future__ import annotations

import sys

from pipeline.cli.lookup import find_app
from pipeline.config import load_settings
from pipeline.processes.wiring import build_environment
from pipeline.runtime.reset import plan_reset, reset_task, start_at
from tests.support.kafka.kill_at import KillAt


def main() -> None:
    """Run the command's reset, without its questions, with steps."""
    point, servers = sys.argv[1:]
    settings = load_settings({"bootstrap_servers": servers})
    app = find_app("tests.support.kafka.sums:app")
    steps = KillAt(point, 1, None, settings.worker.state_dir)
    environment = build_environment(app, settings, steps=steps)
    for planned in list(plan_reset(app, app.groups, None, start_at(["earliest"]), environment)):
        reset_task(planned, "a reset that is killed", environment, settings.worker)


if __name__ == "__main__":
    main()

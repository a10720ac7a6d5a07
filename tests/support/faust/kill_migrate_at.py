"""`pipeline faust migrate` of the shop. It kills itself at a step of the genesis.

python -m tests.support.faust.kill_migrate_at STEP BOOTSTRAP
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.lookup import find_app
from pipeline.config import load_settings
from pipeline.faust.migration import move, survey
from pipeline.processes.wiring import build_environment
from pipeline.runtime.created_topics import create_new_topics
from pipeline.runtime.plan import plan_groups
from tests.support.kafka.kill_at import KillAt


def main() -> None:
    """Run the command's steps, without its questions, with steps."""
    step, servers = sys.argv[1:]
    settings = load_settings({"bootstrap_servers": servers})
    app = find_app("tests.support.faust.shop:app")
    environment = build_environment(app, settings, steps=KillAt(step, 1, None, Path()))
    surveyed = survey(app, environment)
    create_new_topics(app, environment)
    plans, _ = plan_groups(app, app.groups, environment)
    move(surveyed, plans[0], environment, settings.worker)


if __name__ == "__main__":
    main()

"""Groups that an earlier release has started: their journals have format 1."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from pipeline.app import declared_app
from pipeline.core.entry_body import Identity
from pipeline.runtime.plan import plan_groups
from pipeline.runtime.restore.genesis import ensure_genesis
from pipeline.testing import TestDriver

__all__ = ["start_in_format_1"]


def start_in_format_1(driver: TestDriver, *, groups: int | None = None) -> None:
    """Write the genesis of the app's groups as an earlier release does: one task for each partition.

    `groups`: only the first ones.
    """
    app, environment = declared_app(driver.app), driver.environment()
    plans, _ = plan_groups(app, app.groups[:groups], environment)
    for plan in plans:
        identity: Identity = msgspec.structs.replace(plan.identity, tasks=0)
        planned = replace(plan, identity=identity)
        ensure_genesis(
            planned.id,
            planned.task_count,
            identity,
            1,
            environment=environment,
            retry_backoff_ms=driver.settings.retry_backoff_ms,
        )

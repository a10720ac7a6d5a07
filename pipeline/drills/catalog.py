"""All drills by name. A suite is a TOML file with the drills to run, in order:

reason = "before the release"

[[drill]]
name = "kill-worker"
worker = "orders-2"          # optional, as the options of `pipeline drill run`
abort_if = "lag > 100000"
max_tasks = 8
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pipeline.api.app import DeclaredApp
from pipeline.core.names import TaskChoice
from pipeline.core.suggestions import did_you_mean
from pipeline.drills.conditions import parse_conditions
from pipeline.drills.drill import Drill
from pipeline.drills.fleet_drills import RollingRestart, ScaleIn, ScaleOut
from pipeline.drills.kafka_drills import BrokerDown, BrokerRestart, CutNetwork, SlowNetwork
from pipeline.drills.record_drills import PoisonRecord
from pipeline.drills.scene import Options
from pipeline.drills.shadow_replay import ShadowReplay
from pipeline.drills.state_drills import ReplayFromCheckpoint
from pipeline.drills.store_drills import DamageCheckpoint, StoreDown
from pipeline.drills.worker_drills import FillDisk, FreezeWorker, KillWorker, LoseDisk
from pipeline.errors import InputError

__all__ = ["DRILLS", "Suite", "SuiteDrill", "find_drill", "read_suite", "require_drill"]

DRILLS: Mapping[str, type[Drill]] = {
    drill.name: drill
    for drill in (
        KillWorker,
        FreezeWorker,
        LoseDisk,
        RollingRestart,
        ScaleOut,
        ScaleIn,
        BrokerRestart,
        BrokerDown,
        StoreDown,
        DamageCheckpoint,
        FillDisk,
        PoisonRecord,
        ReplayFromCheckpoint,
        ShadowReplay,
        SlowNetwork,
        CutNetwork,
    )
}


def require_drill(name: str) -> None:
    """Raise InputError unless there is a drill with this name."""
    if name not in DRILLS:
        raise InputError(
            f"there is no drill {name}{did_you_mean(name, list(DRILLS))}",
            hint="list them: pipeline drill list",
        )


def find_drill(name: str, declared: DeclaredApp | None = None) -> Drill:
    """The drill with this name. `declared`: the app, if its code is known. Raises InputError."""
    require_drill(name)
    kind = DRILLS[name]
    if kind is PoisonRecord:
        return PoisonRecord(declared)
    return ShadowReplay(declared) if kind is ShadowReplay else kind()


class SuiteDrill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One drill of a suite."""

    name: str
    worker: str = ""
    task: int | str | None = None
    seconds: float | None = None
    max_tasks: int | None = None
    abort_if: str = ""
    reason: str = ""
    since: str = msgspec.field(default="", name="from")

    def options(self, suite_reason: str, target: str) -> Options:
        """The options of the run. Raises InputError for a task or an abort condition that cannot be understood."""
        return Options(
            worker=self.worker,
            task=TaskChoice.parse(str(self.task)) if self.task is not None else None,
            seconds=self.seconds,
            max_tasks=self.max_tasks,
            target=target,
            reason=self.reason or suite_reason,
            abort_if=parse_conditions(self.abort_if) if self.abort_if else (),
            since=self.since,
        )


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Drills in the order of their runs."""

    drill: tuple[SuiteDrill, ...]
    reason: str = ""


def read_suite(path: Path) -> Suite:
    """Read a suite. Raises InputError."""
    try:
        suite = msgspec.toml.decode(path.read_bytes(), type=Suite)
    except OSError as error:
        raise InputError(
            f"the suite {path} cannot be read: {error.strerror}",
            hint="give the path of a TOML file with a [[drill]] for each drill",
        ) from error
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is not a suite of drills: {error}", hint='write a [[drill]] with name = "kill-worker"'
        ) from error
    if not suite.drill:
        raise InputError(f"{path} has no [[drill]]", hint='write a [[drill]] with name = "kill-worker"')
    return suite

"""All drills by name."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.api.app import DeclaredApp
from pipeline.core.suggestions import did_you_mean
from pipeline.drills.broker_drills import BrokerDown, BrokerRestart
from pipeline.drills.disk_drills import FillDisk
from pipeline.drills.drill import Drill
from pipeline.drills.fleet_drills import RollingRestart, ScaleIn, ScaleOut
from pipeline.drills.network_drills import CutNetwork, SlowNetwork
from pipeline.drills.record_drills import PoisonRecord
from pipeline.drills.shadow_replay import ShadowReplay
from pipeline.drills.state_drills import ReplayFromCheckpoint
from pipeline.drills.store_drills import DamageCheckpoint, StoreDown
from pipeline.drills.worker_drills import FreezeWorker, KillWorker, LoseDisk
from pipeline.errors import InputError

__all__ = ["DRILLS", "find_drill"]

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


def find_drill(name: str, declared: DeclaredApp | None = None) -> Drill:
    """The drill with this name. `declared`: the app, if its code is known. Raises InputError."""
    kind = DRILLS.get(name)
    if kind is None:
        raise InputError(
            f"there is no drill {name}{did_you_mean(name, list(DRILLS))}",
            hint="list them: pipeline drill list",
        )
    if kind is PoisonRecord:
        return PoisonRecord(declared)
    return ShadowReplay(declared) if kind is ShadowReplay else kind()

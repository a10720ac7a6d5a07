"""Drills on the network: slow-network and cut-network. They need tc, or a proxy of ours between workers and brokers.

Neither can be used yet: these drills are always refused, with the reason. They are in the catalogue so that a suite
that names them fails with this reason, and not with an unknown name.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.drills.drill import Drill, Plan, RefusedDrillError, Run, Scene
from pipeline.errors import InvariantError

__all__ = ["CutNetwork", "SlowNetwork"]


class SlowNetwork(Drill):
    """Requests to Kafka take long."""

    name = "slow-network"
    summary = "delay requests between a worker and Kafka. Not available yet"
    hypothesis = "Commits become slower, and remain exact."

    def check(self, scene: Scene) -> Iterator[str]:
        yield "the app is allowed"
        raise _refusal(scene)

    def plan(self, scene: Scene) -> Plan:
        raise _refusal(scene)

    def perform(self, run: Run, plan: Plan) -> None:
        raise InvariantError(f"{self.name} is always refused: {run.scene.app}, {plan.target}")


class CutNetwork(SlowNetwork):
    """A worker cannot reach Kafka."""

    name = "cut-network"
    summary = "cut a worker off from Kafka. Not available yet"
    hypothesis = "The tasks of a worker that is cut off commit on other workers."


def _refusal(scene: Scene) -> RefusedDrillError:
    return RefusedDrillError(
        "no-proxy",
        f"the workers of app {scene.app} reach Kafka directly, and this release has no proxy to put in between",
        hint="use freeze-worker for a worker that does not answer, and broker-down for an unreachable Kafka",
    )

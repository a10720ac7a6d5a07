"""Drills on the local broker: broker-restart and broker-down. Only a broker that `pipeline broker` has started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.broker import LocalKafka, default_data_dir
from pipeline.drills.drill import Drill, Plan, RefusedDrillError, Run, Scene
from pipeline.drills.intent import StartBroker

__all__ = ["BrokerDown", "BrokerRestart"]

_RESTART_S = 12.0  # stop, start, and the clients' reconnects
DOWN_S = 30.0


def own_broker(scene: Scene) -> LocalKafka:
    """The broker in use. Raises RefusedDrillError unless `pipeline broker` has started it on this host."""
    servers = scene.settings.kafka.bootstrap_servers
    port = servers.partition(",")[0].rpartition(":")[2]
    chosen = scene.settings.drills.broker_dir
    directory = Path(chosen) if chosen else default_data_dir(int(port) if port.isdigit() else 0)
    status = LocalKafka(directory).status()
    if not status.running or status.cluster_id != scene.cluster.cluster_id():
        raise RefusedDrillError(
            "foreign-broker",
            f"the Kafka at {servers} is not the broker in {directory}, so it was not started by pipeline broker",
            hint="set drills.broker_dir to the data directory of the local broker. Drills stop no other broker",
        )
    return LocalKafka(directory, nodes=len(status.nodes))


class BrokerRestart(Drill):
    """All nodes of the local broker are stopped and started."""

    name = "broker-restart"
    summary = "stop and start the local broker"
    hypothesis = (
        "All tasks commit again after the broker is back, without a restart of a worker. Nothing is lost."
    )
    outage_s = 0.0

    def check(self, scene: Scene) -> Iterator[str]:
        kafka = own_broker(scene)
        yield f"the broker in {kafka.data_dir} was started by pipeline broker"

    def plan(self, scene: Scene) -> Plan:
        kafka = own_broker(scene)
        tasks = [status.task for status in scene.sample.status.tasks]
        seconds = self._seconds(scene)
        actions = [f"stop the broker in {kafka.data_dir}"]
        actions += [f"wait {seconds:.0f} s"] if seconds else []
        return Plan(
            f"the broker in {kafka.data_dir}",
            [*actions, "start it"],
            "no task commits while it is down",
            tasks,
            seconds + _RESTART_S,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        kafka = own_broker(run.scene)
        run.will_undo(StartBroker(str(kafka.data_dir)))
        run.act(f"stop the broker in {kafka.data_dir}")
        kafka.stop()
        run.proves(
            "no process of the broker runs" if not kafka.status().running else "the broker still answers"
        )
        seconds = self._seconds(run.scene)
        if seconds:
            run.clock.sleep(seconds)  # there is nothing to observe
        run.act("start the broker", fault=False)
        kafka.start()
        started_ms = run.healed_ms = run.clock.wall_ms()
        run.proves("the broker serves clients again")
        run.wait_until_committed(plan.tasks, started_ms, acquired=False)
        run.wait_for_rest(len(run.scene.sample.status.workers))

    def _seconds(self, scene: Scene) -> float:
        return scene.options.seconds if scene.options.seconds is not None else self.outage_s


class BrokerDown(BrokerRestart):
    """The broker is unreachable for longer than the session time-out."""

    name = "broker-down"
    summary = f"stop the local broker for {DOWN_S:.0f} s (--seconds), and start it"
    hypothesis = "Workers wait while Kafka is unreachable, and continue when it is back. Nothing is lost."
    outage_s = DOWN_S

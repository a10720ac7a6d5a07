"""Drills on the local broker, and on the network between a worker and its Kafka.

broker-restart and broker-down take only a broker that `pipeline broker` has started. slow-network and cut-network need
a proxy of `pipeline drill proxy` that the worker connects through. The proxy applies the fault, and ends it at its
deadline also if the driller was killed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.broker import LocalKafka, default_data_dir
from pipeline.core.journal_format import EntryKind
from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run, UnrecoveredError
from pipeline.drills.intent import EndNetworkFault, StartBroker
from pipeline.drills.network_faults import NetworkFault, ProxyNote, ProxyPlace
from pipeline.drills.observation import short
from pipeline.drills.proxy import connections_of
from pipeline.drills.scene import RefusedDrillError, Scene
from pipeline.drills.workers import LocalWorker

__all__ = ["BrokerDown", "BrokerRestart", "CutNetwork", "SlowNetwork"]

SLOW_S = 20.0
DELAY_MS = 150
CUT_S = 25.0
_EFFECT_S = 10.0

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
        "All tasks commit again after the broker has started, without a restart of a worker. No data is lost."
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
    hypothesis = (
        "Workers wait while Kafka is unreachable, and continue when it is reachable. No data is lost."
    )
    outage_s = DOWN_S


class _Way(NamedTuple):
    """The way of a worker to its Kafka."""

    victim: LocalWorker
    place: ProxyPlace
    note: ProxyNote


class _NetworkDrill(Drill):
    """A fault of the network of one worker."""

    def check(self, scene: Scene) -> Iterator[str]:
        way = _way(scene)
        yield f"worker {way.victim.worker} reaches Kafka only through the proxy at {way.note.servers}"

    def perform(self, run: Run, plan: Plan) -> None:
        way = _way(run.scene)
        seconds = self._seconds(run.scene)
        step = EndNetworkFault(str(way.place.path))
        run.will_undo(step)
        run.act(f"{self._does()} for worker {way.victim.worker}, process {way.victim.process.pid}")
        longest_s = seconds + run.scene.settings.drills.timeout_s  # for a driller that is killed meanwhile
        way.place.begin(self._fault(way.victim, run.clock.wall_ms() + round(1000 * longest_s)))
        run.wait(lambda: self._affected(way) > 0, "the effect of the fault", _EFFECT_S)
        began_s = run.clock.monotonic_s()
        self._during(run, plan)
        run.pause(max(0.0, seconds - (run.clock.monotonic_s() - began_s)))
        run.proves(f"the proxy {self._effect()} {counted(self._affected(way), 'time')}")
        run.act(f"end of the fault for worker {way.victim.worker}", fault=False)
        step.undo(run.clock)
        self._after(run, plan)

    @abstractmethod
    def _does(self) -> str: ...

    @abstractmethod
    def _effect(self) -> str: ...

    @abstractmethod
    def _seconds(self, scene: Scene) -> float: ...

    @abstractmethod
    def _fault(self, victim: LocalWorker, until_ms: int) -> NetworkFault: ...

    @abstractmethod
    def _during(self, run: Run, plan: Plan) -> None: ...

    @abstractmethod
    def _after(self, run: Run, plan: Plan) -> None: ...

    @staticmethod
    def _affected(way: _Way) -> int:
        note = way.place.note()
        return note.affected if note is not None and note.process.alive and note.fault else 0


class SlowNetwork(_NetworkDrill):
    """Each request and each answer is delayed."""

    name = "slow-network"
    summary = (
        f"delay each request of a worker and each answer by {DELAY_MS} ms for {SLOW_S:.0f} s (--seconds)"
    )
    hypothesis = "Commits become slower, and remain exact. The worker keeps its tasks."

    def plan(self, scene: Scene) -> Plan:
        way = _way(scene)
        tasks = scene.tasks_of(way.victim.worker)
        return Plan(
            f"worker {way.victim.worker}, process {way.victim.process.pid}, through the proxy at {way.note.servers}",
            [
                f"delay its requests and answers by {DELAY_MS} ms",
                f"end this after {self._seconds(scene):.0f} s",
            ],
            f"{counted(len(tasks), 'task')} will commit later",
            tasks,
            0.0,
        )

    def _does(self) -> str:
        return f"delay each request and each answer by {DELAY_MS} ms"

    def _effect(self) -> str:
        return "has delayed a request or an answer"

    def _seconds(self, scene: Scene) -> float:
        return scene.options.seconds or SLOW_S

    def _fault(self, victim: LocalWorker, until_ms: int) -> NetworkFault:
        return NetworkFault("slow", [victim.process.pid], until_ms, DELAY_MS)

    def _during(self, run: Run, plan: Plan) -> None:
        run.wait_until_committed(plan.tasks, acquired=False)

    def _after(self, run: Run, plan: Plan) -> None:
        run.wait_until_committed(plan.tasks, run.clock.wall_ms(), acquired=False)
        run.wait_for_rest(len(run.scene.sample.status.workers))
        moved = [
            short(task)
            for task in plan.tasks
            if any(each.kind is EntryKind.ACQUIRE for each in run.observer.entries(task, run.injected_ms))
        ]
        if moved:
            run.deviations.append(f"tasks were acquired again: {', '.join(moved)}")


class CutNetwork(_NetworkDrill):
    """A worker cannot reach Kafka, and Kafka cannot reach it."""

    name = "cut-network"
    summary = (
        f"cut a worker off from Kafka for at least {CUT_S:.0f} s (--seconds), until others have its tasks"
    )
    hypothesis = (
        "Other workers take over the tasks of a worker that is cut off. When it reaches Kafka again, it is fenced: it "
        "commits nothing for a task that it has lost, and gets a share of the tasks again."
    )

    def check(self, scene: Scene) -> Iterator[str]:
        yield from super().check(scene)
        scene.require_heir(scene.local_victim().worker)
        yield "another worker can take over"

    def plan(self, scene: Scene) -> Plan:
        way = _way(scene)
        tasks = scene.tasks_of(way.victim.worker)
        return Plan(
            f"worker {way.victim.worker}, process {way.victim.process.pid}, through the proxy at {way.note.servers}",
            [
                "close its connections to Kafka, and accept no new ones",
                f"end this after at least {self._seconds(scene):.0f} s, when other workers have its tasks",
            ],
            f"{counted(len(tasks), 'task')} will stop until other workers take over",
            tasks,
            scene.detect_s() + scene.restore_s(tasks, workers=len(scene.sample.status.workers) - 1),
        )

    def _does(self) -> str:
        return "close the connections to Kafka, and accept no new ones,"

    def _effect(self) -> str:
        return "has closed a connection"

    def _seconds(self, scene: Scene) -> float:
        return scene.options.seconds or CUT_S

    def _fault(self, victim: LocalWorker, until_ms: int) -> NetworkFault:
        return NetworkFault("cut", [victim.process.pid], until_ms)

    def _during(self, run: Run, plan: Plan) -> None:
        run.wait_until_committed(plan.tasks, acquired=True)

    def _after(self, run: Run, plan: Plan) -> None:
        del plan
        run.wait_for_rest(len(run.scene.sample.status.workers))
        victim = run.scene.local_victim()
        if not victim.process.alive:
            raise UnrecoveredError(
                f"process {victim.process.pid} of worker {victim.worker} has ended; other workers run its tasks"
            )


def _way(scene: Scene) -> _Way:
    """The proxy of the worker to harm. Raises RefusedDrillError unless all its connections to Kafka go through it."""
    victim = scene.local_victim()
    connections = connections_of(victim.process.pid)
    found = None
    for place, note in ProxyPlace.running(scene.settings.drills.directory.absolute()):
        if any(each.remote_port in note.ports for each in connections):
            found = _Way(victim, place, note)
    if found is None:
        raise RefusedDrillError(
            "no-proxy",
            f"worker {victim.worker} reaches Kafka directly, so its network cannot be disturbed alone",
            hint="start pipeline drill proxy in this directory, and the worker with --kafka and the address that it "
            "prints",
        )
    brokers = {int(server.rpartition(":")[2]) for server in found.note.kafka.split(",")}
    direct = sorted({each.remote_port for each in connections} & (brokers - set(found.note.ports)))
    if direct:
        raise RefusedDrillError(
            "past-the-proxy",
            f"worker {victim.worker} has connections to port {direct[0]} of Kafka beside those to the proxy",
            hint="start the worker with the address of the proxy as its only --kafka",
        )
    return found

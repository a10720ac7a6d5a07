"""Several workers of the sums app on one in-memory Kafka, with one clock, and a disk for each."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Self

import structlog

from pipeline import Dedup
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.errors import PipelineError
from pipeline.ports.peers import NoPeers
from pipeline.runtime.environment import Checkpoints, Environment, NoSteps
from pipeline.runtime.live_task import LiveTask
from pipeline.runtime.metrics.meter import Meter
from pipeline.runtime.worker import Worker
from pipeline.testing import DriverDatabases, ManualClock, MemoryBroker, SeededRandom
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers, MemorySources
from pipeline.testing.memory_members import MemoryMembers
from pipeline.testing.memory_peers import MemoryNetwork, MemoryPeers
from pipeline.testing.memory_store import MemoryCheckpointStore, MemoryStores
from pipeline.testing.system import DeferredExecutor, InlineExecutor
from tests.support.checker import MemoryLog
from tests.support.runtime.sums import Sum, Sums

TURN_S = 0.05
REST_S = WorkerSettings().check_interval_s + 1.0


@dataclass
class Node:
    """A worker process. `paused`: stopped, like with SIGSTOP."""

    worker_id: str
    worker: Worker
    executor: DeferredExecutor
    stores: MemoryStores
    log: structlog.testing.CapturingLogger
    databases: DriverDatabases
    meter: Meter
    peers: MemoryPeers
    paused: bool = False
    ended: bool = False

    @property
    def process(self) -> str:
        return self.worker.process

    @property
    def live(self) -> dict[TaskId, LiveTask]:
        if self.ended:
            return {}
        return {task.id: task for run in self.worker.runs for task in run.tasks.values()}

    def log_events(self, event: str) -> list[dict[str, object]]:
        return [call.kwargs for call in self.log.calls if call.args == (event,)]


@dataclass
class Fleet:
    """`turn` runs a turn of every worker, in an order that depends on the seed."""

    partitions: int = 12
    seed: int = 0
    settings: WorkerSettings = field(
        default_factory=WorkerSettings
    )  # with a checkpoint store: in memory, shared
    nodes: list[Node] = field(default_factory=list)
    dedup: Dedup[str, int] | None = None
    watching: bool = False  # whether the workers watch each other over TCP
    tasks: int = 0  # of the group; 0: one for each partition

    def __post_init__(self) -> None:
        self.tasks = self.tasks or self.partitions
        self.sums = Sums(partitions=self.partitions, dedup=self.dedup, tasks=self.tasks)
        self.broker: MemoryBroker = self.sums.driver.broker
        self.clock: ManualClock = self.sums.driver.clock
        self.random = random.Random(self.seed)
        self.started = 0
        self.checkpoints = MemoryCheckpointStore(self.clock.wall_ms)
        self.databases = DriverDatabases()
        self.network = MemoryNetwork()

    @classmethod
    def at_rest(cls, *workers: str) -> Self:
        """Four tasks on these workers, which have processed their inputs."""
        fleet = cls(partitions=4)
        for worker in workers:
            fleet.start(worker)
        fleet.send()
        fleet.settle()
        return fleet

    def start(
        self,
        worker_id: str,
        *,
        stores: MemoryStores | None = None,
        sums: Sums | None = None,
        groups: Sequence[str] = (),
    ) -> Node:
        """Start a worker. `sums`: another version of the app. `groups`: those that it runs, instead of all."""
        self.started += 1
        executor = DeferredExecutor(self.seed + self.started)
        log = structlog.testing.CapturingLogger()
        stores = stores if stores is not None else MemoryStores()
        stored = bool(self.settings.checkpoint_store)
        databases = DriverDatabases(beside=self.databases)
        meter = Meter(self.clock.monotonic_s)
        peers = MemoryPeers(self.network)
        environment = Environment(
            cluster=MemoryCluster(self.broker),
            sources=MemorySources(self.broker),
            producers=MemoryProducers(self.broker),
            members=MemoryMembers(self.broker, self.clock),
            journals=lambda: MemoryJournalReader(self.broker),
            stores=stores,
            clock=self.clock,
            random=SeededRandom(self.seed * 1000 + self.started),
            executor=executor,
            log=log,
            steps=NoSteps(),
            checkpoints=Checkpoints(self.checkpoints, InlineExecutor()) if stored else None,
            databases=databases,
            meter=meter,
            peers=peers if self.watching else NoPeers(),
        )
        settings = replace(self.settings, worker_id=worker_id)
        node = Node(
            worker_id,
            Worker(declared_app((sums or self.sums).app).only(groups), environment, settings),
            executor,
            stores,
            log,
            databases,
            meter,
            peers,
        )
        node.worker.start()
        self.nodes.append(node)
        return node

    def turn(self) -> None:
        self.clock.advance(TURN_S)
        for node in self.random.sample(self.nodes, len(self.nodes)):
            if node.paused or node.ended:
                continue
            if node.worker.finished:
                self.stop(node)
                continue
            node.worker.step()
            node.peers.turn()
            for _ in range(self.random.randint(1, 4)):
                node.executor.run_one()

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / TURN_S)):
            self.turn()
        self.sums.checker.check()

    def settle(self, within_s: float = 60.0) -> None:
        """Run until every task has its intended owner and all input is processed.

        This must hold for longer than an idle worker needs to detect that it was fenced.
        """
        rest_s = 0.0
        for _ in range(int(within_s / TURN_S)):
            self.turn()
            awake = [node for node in self.nodes if not (node.paused or node.ended)]
            at_rest = awake and all(node.worker.idle for node in awake) and self._all_processed()
            rest_s = rest_s + TURN_S if at_rest else 0.0
            if rest_s > REST_S:
                return
        raise AssertionError(f"the workers did not come to rest: {self.owners()}")

    def kill(self, node: Node) -> None:
        """End a worker, like SIGKILL."""
        self.network.remove(node.process)
        node.executor.drop()
        node.stores.crash()
        node.databases.crash()
        node.ended = True

    def stop(self, node: Node) -> list[PipelineError]:
        """Stop a worker, like SIGTERM. Returns its failures."""
        node.worker.stop()
        node.worker.close()
        node.ended = True
        return list(node.worker.failures.values())

    def owners(self) -> dict[str, list[int]]:
        """The numbers of the live tasks of each running worker."""
        return {
            node.worker_id: sorted(task.number for task in node.live)
            for node in self.nodes
            if not (node.paused or node.ended)
        }

    def check(self) -> None:
        """Check that each task is live once, task counts differ by at most one, and results match a fold."""
        owned = self.owners()
        assert sorted(chain.from_iterable(owned.values())) == list(range(self.tasks)), owned
        loads = [len(tasks) for tasks in owned.values()]
        assert max(loads) - min(loads) <= 1
        self.check_results()

    def check_results(self) -> None:
        """Check that the results match a fold."""
        self.sums.checker.finish(MemoryLog(self.broker))
        expected: dict[str, list[Sum]] = defaultdict(list)
        for key, number in self.sums.sent:
            before = expected[key][-1] if expected[key] else Sum(0, 0)
            expected[key].append(Sum(before.count + 1, before.total + number))
        found: dict[str, list[Sum]] = defaultdict(list)
        for event in self.sums.driver.outputs(self.sums.sums):
            found[event.key].append(event.value)
        assert found == expected

    def send(self, rounds: int = 1) -> None:
        """Send inputs that reach every partition over time."""
        for _ in range(rounds):
            for key in range(3 * self.partitions):
                self.sums.send(self.random.randint(0, 9), key=f"k{key}")

    def _all_processed(self) -> bool:
        done = sum(sum(task.applied.positions.values()) for node in self.nodes for task in node.live.values())
        return done >= len(self.broker.records("numbers"))

"""Starts, stops and kills a real Apache Kafka on this machine, and shows its status: `LocalKafka`.

    nothing --start--> running --stop--> stopped --start--> running (the same records and cluster id)
                          |                 ^
                          +--kill, crash----+   (a start also starts the nodes that are missing)

Guarantees: after a successful start, all nodes answer and know each other. A failed start leaves no process. Only
processes that were started from the same data directory are ever ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from pipeline.broker import checks, launch
from pipeline.broker.directories import cache_dir, exclusive, explain_os_errors, make_dir
from pipeline.broker.install import (
    Lock,
    ensure_installed,
    install_dir,
    java_version,
    own_java,
    shipped_lock,
    with_quick_start,
)
from pipeline.broker.node import JavaRuntime
from pipeline.broker.ports import choose_ports
from pipeline.broker.processes import kill
from pipeline.broker.reporting import BrokerError, Report, StepProgress, silent
from pipeline.broker.state import (
    LOCK,
    BrokerState,
    NodeState,
    erase,
    new_cluster_id,
    node_dir,
    pid_of,
    read_state,
    write_state,
)
from pipeline.broker.wire import view_of
from pipeline.directories import close_to_others

__all__ = ["LocalKafka", "NodeStatus", "Status"]

_LOCK_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. `pid`: 0 if it does not run. `answers`: whether it serves clients."""

    id: int
    port: int
    pid: int
    answers: bool
    log: Path


@dataclass(frozen=True, slots=True)
class Status:
    """The cluster of a data directory; without nodes if none was ever started there."""

    data_dir: Path
    kafka_version: str = ""
    cluster_id: str = ""
    bootstrap_servers: str = ""
    nodes: tuple[NodeStatus, ...] = ()

    @property
    def running(self) -> bool:
        """Whether every node serves clients."""
        return bool(self.nodes) and all(node.answers for node in self.nodes)


class LocalKafka:
    """The cluster in `data_dir`.

    Node n listens on `port + n - 1`. Without a port, the first start chooses free ports, which are then kept. `lock`:
    the Kafka release to run, in tests; without it, the release of this package. `settings`: additional broker settings
    of the next start, in tests. The listener CLIENT must remain. Every method may raise BrokerError.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        nodes: int = 1,
        lock: Lock | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        if nodes not in {1, 3}:
            raise BrokerError(f"a local Kafka has 1 or 3 nodes, not {nodes}", hint="--nodes 1 or --nodes 3")
        if port is not None and not 1 <= port <= 65_535 - 2:
            raise BrokerError(f"{port} is not a port", hint="choose one from 1024 to 65533 with --port")
        # With links resolved, because the path identifies the processes.
        self.data_dir = data_dir.expanduser().resolve()
        self._port = port
        self._nodes = nodes
        self._lock = lock
        self._settings = settings

    def __enter__(self) -> LocalKafka:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """The bootstrap servers, such as `127.0.0.1:9092`; one for each node."""
        return self._known().bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """The id of the cluster, which stays the same until its records are deleted."""
        return self._known().cluster_id

    def start(self, *, fresh: bool = False, report: Report = silent) -> bool:
        """Start every node that does not run, and wait until the cluster serves clients.

        `fresh`: first delete the records of an earlier, stopped cluster. Returns False if all nodes were running.

        1. Install or check the jars and the class cache.
        2. Check the request against the state in the data directory.
        3. Check memory, disk and ports.
        4. Write the state. End the sessions of the last run. Format the storage of a new cluster.
        5. Start the processes and write their ids to the state.
        6. Wait until all nodes answer. On any failure, end the processes of step 5.
        """
        lock = self._lock or shipped_lock()
        checks.require_usable_path(self.data_dir)
        runtime = _runtime(lock, report)
        make_dir(self.data_dir)
        with self._exclusive(report):
            state = self._agreed_state(lock, fresh=fresh)
            with explain_os_errors(self.data_dir):
                close_to_others(self.data_dir)  # only once it is known to be the directory of a broker
            missing = [node for node in state.nodes if not pid_of(self.data_dir, node)]
            if not missing:
                launch.wait_until_serving(self.data_dir, state, started={})
                return False
            checks.require_memory(len(missing), len(state.nodes))
            checks.require_disk(self.data_dir)
            checks.require_free_ports(missing)
            state = msgspec.structs.replace(state, run_by=lock.kafka_version)
            write_state(self.data_dir, state)
            if len(missing) == len(state.nodes):
                launch.end_last_run(runtime, self.data_dir, state, report)
            state = launch.prepare(runtime, self.data_dir, state, missing, report, self._settings)
            launch.run(runtime, self.data_dir, state, missing, report)
            return True

    def stop(self, report: Report = silent) -> bool:
        """Stop every node: SIGTERM first, then SIGKILL. Returns False if none was running."""
        if read_state(self.data_dir) is None:
            return False
        with self._exclusive(report):
            state = self._known()
            running = self._running(state)
            if running:
                report(StepProgress("stopping"))
                launch.stop(self.data_dir, running)
            write_state(self.data_dir, state.with_pids({node.id: 0 for node in state.nodes}))
            return bool(running)

    def kill(self, node: int = 1) -> None:
        """End one node with SIGKILL, like a crash. `start` starts it again."""
        pid = self._running(self._known()).get(node)
        if pid is None:
            raise BrokerError(
                f"node {node} of the broker in {self.data_dir} does not run",
                hint=f"pipeline broker start --data-dir {self.data_dir}",
            )
        kill({pid: node_dir(self.data_dir, node)})

    def status(self) -> Status:
        """The current status of the cluster. Queries each node, and waits about a second for one that hangs."""
        state = read_state(self.data_dir)
        if state is None:
            return Status(self.data_dir)
        return Status(
            self.data_dir,
            state.run_by or state.kafka_version,
            state.cluster_id,
            state.bootstrap_servers,
            tuple(self._node_status(state, node) for node in state.nodes),
        )

    def _node_status(self, state: BrokerState, node: NodeState) -> NodeStatus:
        pid = pid_of(self.data_dir, node)
        view = view_of(node.port) if pid else None
        return NodeStatus(
            id=node.id,
            port=node.port,
            pid=pid,
            answers=view is not None and view.cluster_id == state.cluster_id,
            log=node_dir(self.data_dir, node.id) / launch.LOG,
        )

    def _agreed_state(self, lock: Lock, *, fresh: bool) -> BrokerState:
        if fresh:
            checks.require_stopped(self.data_dir)
            erase(self.data_dir)
        state = read_state(self.data_dir)
        if state is None:
            checks.require_empty(self.data_dir)
            return self._new_state(lock)
        checks.require_readable(self.data_dir, state, lock.kafka_version)
        checks.require_same_nodes(self.data_dir, state, self._nodes)
        if self._running(state):
            checks.require_same_port(self.data_dir, state, self._port)
            return state
        return msgspec.structs.replace(state, nodes=self._with_ports(state.nodes))

    def _new_state(self, lock: Lock) -> BrokerState:
        nodes = tuple(NodeState(id=n + 1, port=0, controller_port=0) for n in range(self._nodes))
        return BrokerState.new(lock.kafka_version, new_cluster_id(), self._with_ports(nodes))

    def _with_ports(self, nodes: tuple[NodeState, ...]) -> tuple[NodeState, ...]:
        """The nodes with client ports: as requested, as before, or new. Controller ports are always new."""
        if self._port is not None:
            ports = [self._port + n for n in range(len(nodes))]
        elif nodes[0].port:
            ports = [node.port for node in nodes]
        else:
            ports = choose_ports(len(nodes))
        controllers = choose_ports(len(nodes), avoid=ports)
        return tuple(
            msgspec.structs.replace(node, port=port, controller_port=controller)
            for node, port, controller in zip(nodes, ports, controllers, strict=True)
        )

    def _running(self, state: BrokerState) -> Mapping[int, int]:
        pids = {node.id: pid_of(self.data_dir, node) for node in state.nodes}
        return {id_: pid for id_, pid in pids.items() if pid}

    def _known(self) -> BrokerState:
        state = read_state(self.data_dir)
        if state is None:
            raise BrokerError(
                f"no broker was ever started in {self.data_dir}",
                hint=f"pipeline broker start --data-dir {self.data_dir}",
            )
        return state

    def _exclusive(self, report: Report) -> AbstractContextManager[None]:
        return exclusive(self.data_dir / LOCK, timeout_s=_LOCK_WAIT_S, report=report)


def _runtime(lock: Lock, report: Report) -> JavaRuntime:
    java = own_java()  # first, because the download is useless without it
    checks.require_usable_path(cache_dir())
    runtime = JavaRuntime(java, ensure_installed(cache_dir(), lock, report=report))
    return with_quick_start(
        runtime,
        install_dir(cache_dir(), lock),
        kafka_version=lock.kafka_version,
        java_version=java_version(),
        report=report,
    )

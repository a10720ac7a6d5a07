"""The preconditions for the start of a broker. A check that fails raises BrokerError with the reason and a hint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline.broker.node import OVERHEAD_MB, heap_mb
from pipeline.broker.ports import Listener, choose_ports, is_free, listener_of
from pipeline.broker.processes import find_node, marked_dir
from pipeline.broker.reporting import BrokerError
from pipeline.broker.state import LOCK, MAX_NODES, BrokerState, NodeState, node_dir
from pipeline.broker.wire import view_of
from pipeline.ports import Deadline, SystemClock

__all__ = [
    "require_disk",
    "require_empty",
    "require_free_ports",
    "require_memory",
    "require_readable",
    "require_same_nodes",
    "require_same_port",
    "require_stopped",
    "require_usable_path",
]

_DISK_MB = 200
_CLOSING_S = 1.0
_POLL_S = 0.02
_FRESH = (
    "add --fresh to start an empty broker (it deletes the records of this one), or choose another --data-dir"
)


def require_usable_path(path: Path) -> None:
    """Require a path without `:` and `,`. Java and Kafka split lists of paths there, and have no escape for them."""
    unusable = sorted(set(str(path)) & set(",:\\\n"))
    if unusable:
        raise BrokerError(
            f"Kafka cannot use the directory {path}: its name has a {unusable[0]!r} in it",
            hint="choose another with --data-dir or PIPELINE_CACHE_DIR",
        )


def require_empty(data_dir: Path) -> None:
    """Require an empty directory for a new broker, so that foreign files are never mixed with ours or deleted."""
    other = sorted(path.name for path in data_dir.iterdir() if path.name != LOCK)
    if other:
        raise BrokerError(
            f"{data_dir} holds {other[0]!r} and no broker.json, so it is not a broker's directory",
            hint="choose an empty or a new directory with --data-dir"
            + ("; if this was a broker's, --fresh deletes what is left of it" if "node-1" in other else ""),
        )


def require_same_nodes(data_dir: Path, state: BrokerState, nodes: int) -> None:
    """Require the number of nodes that the storage was formatted for. It cannot change."""
    if len(state.nodes) != nodes:
        raise BrokerError(
            f"the broker in {data_dir} was formatted with {len(state.nodes)} node(s), not {nodes}",
            hint=f"ask for --nodes {len(state.nodes)}; or {_FRESH}",
        )


def require_readable(data_dir: Path, state: BrokerState, kafka_version: str) -> None:
    """Require storage that this Kafka can read: it refuses the metadata version of a newer feature release."""
    if _feature_release(state.kafka_version) > _feature_release(kafka_version):
        raise BrokerError(
            f"the broker in {data_dir} was formatted by Kafka {state.kafka_version}, "
            f"which the Kafka of this release, {kafka_version}, cannot read",
            hint=f"use the release of exactly-once-pipeline that created it; or {_FRESH}",
        )


def _feature_release(kafka_version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kafka_version.split(".")[:2] if part.isdigit())


def require_same_port(data_dir: Path, state: BrokerState, port: int | None) -> None:
    """Require the current port of a running broker."""
    if port is not None and state.nodes[0].port != port:
        raise BrokerError(
            f"the broker in {data_dir} runs already, on port {state.nodes[0].port}, not {port}",
            hint=f"pipeline broker stop --data-dir {data_dir}; then start it with the other port",
        )


def require_stopped(data_dir: Path) -> None:
    """Require a stopped broker before its records are deleted."""
    if any(find_node(node_dir(data_dir, node_id)) for node_id in range(1, MAX_NODES + 1)):
        raise BrokerError(
            f"the broker in {data_dir} runs; it must be stopped before its records are deleted",
            hint=f"pipeline broker stop --data-dir {data_dir}",
        )


def require_free_ports(nodes: Sequence[NodeState]) -> None:
    """Require that the ports of all nodes to start are free."""
    for node in nodes:
        for port in (node.port, node.controller_port):
            deadline = Deadline(SystemClock(), _CLOSING_S, _POLL_S)
            while not is_free(port):
                listener = listener_of(port)
                # A process that is being killed keeps its port slightly longer than its command line.
                if listener is not None or not deadline.pause():
                    _refuse_port(port, listener)


def _refuse_port(port: int, listener: Listener | None) -> NoReturn:
    if port < 1024 and listener is None:
        raise BrokerError(f"port {port} is reserved for the system", hint="choose one above 1023 with --port")
    ours = marked_dir(listener.command) if listener else None
    if ours is not None and listener is not None:
        raise BrokerError(
            f"port {port} is taken by the local broker in {ours.parent} (process {listener.pid})",
            hint=f"pipeline broker stop --data-dir {ours.parent}",
        )
    who = f"`{Path(listener.command[0]).name}` (process {listener.pid})" if listener else "another program"
    kafka = ", which answers as a Kafka broker" if view_of(port) else ""
    raise BrokerError(
        f"port {port} is taken by {who}{kafka}",
        hint=f"choose another: pipeline broker start --port {choose_ports(1)[0]}",
    )


def require_memory(starting: int, nodes: int) -> None:
    """Require enough available memory for the heaps and the memory outside of them."""
    needed = starting * (heap_mb(nodes) + OVERHEAD_MB)
    available = _available_mb()
    if available is not None and available < needed:
        raise BrokerError(
            f"{starting} Kafka node(s) need {needed} MB of memory; {available} MB are available",
            hint="end other programs or raise the container's limit"
            + (", or use --nodes 1" if nodes > 1 else ""),
        )


def require_disk(data_dir: Path) -> None:
    """Require enough disk space for a start and some records."""
    free = shutil.disk_usage(data_dir).free // 1_000_000
    if free < _DISK_MB:
        raise BrokerError(
            f"{free} MB are free on the disk of {data_dir}; a broker needs {_DISK_MB} MB at least",
            hint="free some space, or choose another disk with --data-dir",
        )


def _available_mb() -> int | None:
    """The available memory of the machine, or of the container if it is less; None if neither can be read."""
    found = []
    try:
        rows = [row.split() for row in Path("/proc/meminfo").read_text().splitlines()]
        found += [int(row[1]) // 1024 for row in rows if row[0] == "MemAvailable:"]
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            found.append((int(limit) - used + _reclaimable()) // 2**20)
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def _reclaimable() -> int:
    """The bytes of cached files. They count as used memory of the container, but are reclaimable."""
    rows = dict(row.split() for row in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
    return int(rows.get("inactive_file", 0)) + int(rows.get("active_file", 0))

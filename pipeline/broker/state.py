"""`broker.json`: the cluster in a data directory, and its processes.

It is written atomically, and before the change that it describes: the cluster id is written before the storage is
formatted with it. A recorded process id is only a hint; `pid_of` checks the running processes.
"""

from __future__ import annotations

import base64
import shutil
import uuid
from pathlib import Path

import msgspec

from pipeline.broker.directories import explain_os_errors, write_atomically
from pipeline.broker.processes import find_node, is_node
from pipeline.broker.reporting import BrokerError

__all__ = [
    "LOCK",
    "MAX_NODES",
    "BrokerState",
    "NodeState",
    "erase",
    "new_cluster_id",
    "node_dir",
    "pid_of",
    "read_state",
    "write_state",
]

LOCK = ".lock"
MAX_NODES = 3

_VERSION = 1
_FILE = "broker.json"


class NodeState(msgspec.Struct, frozen=True):
    """One node. `pid`: 0 if it was never started, or was stopped."""

    id: int
    port: int
    controller_port: int
    pid: int = 0


class BrokerState(msgspec.Struct, frozen=True):
    """One cluster on this machine. `formatted`: whether the storage of every node has the cluster id.

    `kafka_version`: the release that formatted the storage, which keeps that release's metadata version. `run_by`: the
    release that was started last; empty in files of releases that did not record it.
    """

    version: int
    kafka_version: str
    cluster_id: str
    formatted: bool
    nodes: tuple[NodeState, ...]
    run_by: str = ""

    @staticmethod
    def new(kafka_version: str, cluster_id: str, nodes: tuple[NodeState, ...]) -> BrokerState:
        """The state of a new cluster before it is formatted."""
        return BrokerState(_VERSION, kafka_version, cluster_id, formatted=False, nodes=nodes)

    @property
    def bootstrap_servers(self) -> str:
        """The bootstrap servers for clients."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def with_pids(self, pids: dict[int, int]) -> BrokerState:
        """A copy with these process ids by node id; the other nodes keep theirs."""
        nodes = tuple(msgspec.structs.replace(n, pid=pids.get(n.id, n.pid)) for n in self.nodes)
        return msgspec.structs.replace(self, nodes=nodes)


def node_dir(data_dir: Path, node_id: int) -> Path:
    """The directory of a node's settings, log and records."""
    return data_dir / f"node-{node_id}"


def pid_of(data_dir: Path, node: NodeState) -> int:
    """The id of the running process of this node, independent of the recorded one; 0 if there is none."""
    where = node_dir(data_dir, node.id)
    return node.pid if is_node(node.pid, where) else find_node(where)


def read_state(data_dir: Path) -> BrokerState | None:
    """The state of a data directory; None if no broker was ever started there."""
    path = data_dir / _FILE
    try:
        with explain_os_errors(path):
            content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        state = msgspec.json.decode(content, type=BrokerState)
    except msgspec.MsgspecError as error:
        raise BrokerError(
            f"{path} cannot be understood: {error}",
            hint=f"`{_fresh_command(data_dir)}` starts an empty broker and deletes the records of this one",
        ) from error
    if state.version != _VERSION:
        raise BrokerError(
            f"{path} is of version {state.version}; this release knows version {_VERSION}",
            hint=f"use the release that wrote it, or `{_fresh_command(data_dir)}` (deletes its records)",
        )
    return state


def _fresh_command(data_dir: Path) -> str:
    """The command with its --data-dir: without it, the command would delete the records of another broker."""
    return f"pipeline broker start --data-dir {data_dir} --fresh"


def write_state(data_dir: Path, state: BrokerState) -> None:
    """Replace the state atomically."""
    write_atomically(data_dir / _FILE, msgspec.json.format(msgspec.json.encode(state)))


def erase(data_dir: Path) -> None:
    """Delete the state and the records of a stopped cluster. Other files in the directory are not deleted."""
    with explain_os_errors(data_dir):
        (data_dir / _FILE).unlink(missing_ok=True)
        for node_id in range(1, MAX_NODES + 1):
            directory = node_dir(data_dir, node_id)
            if directory.exists():
                shutil.rmtree(directory)


def new_cluster_id() -> str:
    """16 random bytes in Kafka's text form. Never an id that starts with a dash, like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text

"""The settings, Java options and command lines of one node of the local Kafka.

It is a development broker with production settings where results depend on them: transactions, replication (with three
nodes: factor 3, two in sync), and no automatic topic creation. The other settings make the start fast: few internal
partitions, small buffers, and no delay for joining groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.ports import HOST
from pipeline.broker.processes import mark
from pipeline.broker.state import BrokerState, NodeState

__all__ = [
    "OVERHEAD_MB",
    "SCRATCH",
    "JavaRuntime",
    "controller_properties",
    "format_command",
    "heap_mb",
    "properties",
    "run_command",
]

# Java unpacks native libraries here, because the system's directory may be mounted with noexec.
SCRATCH = "scratch"
_GC = "G1"
_LISTS = frozenset({"listeners", "advertised.listeners", "listener.security.protocol.map"})
# Memory outside of the heap: code, threads, direct buffers. Measured at 150 MB, plus a margin.
OVERHEAD_MB = 200


@dataclass(frozen=True, slots=True)
class JavaRuntime:
    """The Java part of every command line. `options`: those of `install.with_quick_start`."""

    java: Path
    jars: tuple[Path, ...]
    options: tuple[str, ...] = ()

    @property
    def classpath(self) -> str:
        """The jars in the order of the lock file."""
        return ":".join(str(jar) for jar in self.jars)


def heap_mb(nodes: int) -> int:
    """The heap size of each node in MB."""
    return 512 if nodes == 1 else 400


def controller_properties(state: BrokerState, node: NodeState, log_dir: Path) -> str:
    """The text of `server.properties` for this node's controller only, with a short broker session time-out."""
    settings = _controller(state, node, log_dir) | {
        "process.roles": "controller",
        "listeners": f"CONTROLLER://{HOST}:{node.controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT",
        "broker.session.timeout.ms": 1_000,
    }
    return _text(settings)


def properties(
    state: BrokerState, node: NodeState, log_dir: Path, more: Mapping[str, str] | None = None
) -> str:
    """The text of `server.properties`. `more`: additional settings; listeners are added to those of this module."""
    replicas = min(3, len(state.nodes))
    in_sync = 2 if replicas == 3 else 1
    # A killed node can rejoin a cluster only after its last session has ended: 9 s by default. A much shorter time-out
    # would fence brokers whenever this machine is busy. The only node has no other to take over. If its session ended,
    # after a stall of its process, its partitions would have no leader for a moment, and its coordinator would skip
    # markers of committed transactions.
    session_ms = 5_000 if replicas == 3 else 24 * 3_600_000
    settings = _controller(state, node, log_dir) | {
        "process.roles": "broker,controller",
        "listeners": f"CLIENT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"CLIENT://{HOST}:{node.port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "auto.create.topics.enable": "false",
        # A controlled shutdown of the last replica leaves its partitions without a leader while its transaction
        # coordinator still runs, which then skips markers of committed transactions (launch.py).
        "controlled.shutdown.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 5,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 10,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 5,
        "broker.session.timeout.ms": session_ms,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        # The default of 128 MB is allocated at the start, a quarter of this heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    for name, value in (more or {}).items():
        settings[name] = f"{settings[name]},{value}" if name in _LISTS else value
    return _text(settings)


def _controller(state: BrokerState, node: NodeState, log_dir: Path) -> dict[str, object]:
    """The settings of a node's controller, with or without its broker."""
    voters = ",".join(f"{n.id}@{HOST}:{n.controller_port}" for n in state.nodes)
    return {
        "node.id": node.id,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "log.dirs": log_dir,
    }


def _text(settings: Mapping[str, object]) -> str:
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    """Escape a value: Java reads a properties file as Latin-1, with all other characters as UTF-16 code units."""
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def format_command(runtime: JavaRuntime, state: BrokerState, settings: Path) -> list[str]:
    """The command that formats a node's storage. It can be repeated: formatted directories are not changed."""
    return [
        *_java(runtime, "-Xmx128m", "-XX:TieredStopAtLevel=1"),
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        f"--cluster-id={state.cluster_id}",
        f"--config={settings}",
    ]


def run_command(runtime: JavaRuntime, nodes: int, directory: Path) -> list[str]:
    """The command that runs the node whose `server.properties` is in `directory`."""
    options = (
        mark(directory),
        f"-Xmx{heap_mb(nodes)}m",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={directory}/java-crash.log",
        f"-Djava.io.tmpdir={directory / SCRATCH}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
    )
    return [*_java(runtime, *options), "kafka.Kafka", str(directory / "server.properties")]


def _java(runtime: JavaRuntime, *options: str) -> list[str]:
    always = (
        "-Djava.awt.headless=true",
        "-XX:-UsePerfData",
        "--enable-native-access=ALL-UNNAMED",
        f"-XX:+Use{_GC}GC",
        # Java 25 cannot match some of its recorded code stubs, and warns about each.
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:-AOTAdapterCaching",
        "-XX:-AOTStubCaching",
    )
    return [str(runtime.java), *always, *runtime.options, *options, "-cp", runtime.classpath]

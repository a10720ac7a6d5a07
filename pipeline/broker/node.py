"""One node of the local Kafka: its settings, its Java options, its command lines.

The settings are those of a development broker that must behave as a production one where results depend on it:
transactions, replication (three nodes: factor 3, two in sync), no topics that appear by themselves. What differs
is cheap start-up: few internal partitions, small buffers, no delay for joining groups.
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

# Where Java unpacks its native libraries: the system's directory may be mounted without execution.
SCRATCH = "scratch"
_GC = "G1"
# Beyond the heap: code, threads, direct buffers; measured at 150 MB, with room.
OVERHEAD_MB = 200


@dataclass(frozen=True, slots=True)
class JavaRuntime:
    """What every command line starts with. `options` are quickstart.py's."""

    java: Path
    jars: tuple[Path, ...]
    options: tuple[str, ...] = ()

    @property
    def classpath(self) -> str:
        """The jars in the order of the lock file."""
        return ":".join(str(jar) for jar in self.jars)


def heap_mb(nodes: int) -> int:
    """The heap of each node."""
    return 512 if nodes == 1 else 400


def controller_properties(state: BrokerState, node: NodeState, log_dir: Path) -> str:
    """The text of `server.properties` for this node's controller alone, which counts a silent broker as gone soon."""
    settings = _controller(state, node, log_dir) | {
        "process.roles": "controller",
        "listeners": f"CONTROLLER://{HOST}:{node.controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT",
        "broker.session.timeout.ms": 1_000,
    }
    return _text(settings)


def properties(state: BrokerState, node: NodeState, log_dir: Path) -> str:
    """The text of `server.properties`."""
    replicas = min(3, len(state.nodes))
    in_sync = 2 if replicas == 3 else 1
    settings = _controller(state, node, log_dir) | {
        "process.roles": "broker,controller",
        "listeners": f"CLIENT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"CLIENT://{HOST}:{node.port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "auto.create.topics.enable": "false",
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
        # A killed node may come back among others only when its last session is over: 9 s by default. Much
        # less would take a broker out of service whenever this machine is busy.
        "broker.session.timeout.ms": 5_000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        # The default of 128 MB is taken from the heap at start, a quarter of ours.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return _text(settings)


def _controller(state: BrokerState, node: NodeState, log_dir: Path) -> dict[str, object]:
    """What a node's controller needs, alone or beside its broker."""
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
    """Java reads a properties file as Latin-1, with every other character as its UTF-16 code units."""
    units = value.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def format_command(runtime: JavaRuntime, state: BrokerState, settings: Path) -> list[str]:
    """Prepares a node's storage. Safe to repeat: a directory that is formatted already is left alone."""
    return [
        *_java(runtime, "-Xmx128m", "-XX:TieredStopAtLevel=1"),
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        f"--cluster-id={state.cluster_id}",
        f"--config={settings}",
    ]


def run_command(runtime: JavaRuntime, nodes: int, directory: Path) -> list[str]:
    """Runs the node whose `server.properties` is in `directory`."""
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
        # Java 25 fails to match some of the code stubs that it recorded, and warns about each.
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:-AOTAdapterCaching",
        "-XX:-AOTStubCaching",
    )
    return [str(runtime.java), *always, *runtime.options, *options, "-cp", runtime.classpath]

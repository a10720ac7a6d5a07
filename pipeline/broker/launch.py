"""Starts a cluster whose state is written: formats the storage, starts the nodes, waits until they serve.

After a stop or a crash of every node, their old sessions are ended before a broker starts (`end_sessions`).
Kafka counts a broker that has ended as alive for `broker.session.timeout.ms`. A broker that starts within that time
loads its transaction coordinator from metadata in which it leads its partitions, and completes the transactions that
its end interrupted. Then the old session ends and the partitions have no leader. Kafka treats them as deleted and
permanently skips the transaction markers (KAFKA-20734, in 4.3.1 and in 4.4.0). Readers then wait forever at a committed
transaction, and an abort of the next transaction drops its records. So the controllers run alone first, and the
sessions end while no coordinator runs.

A controlled shutdown of the only node has the same effect: its partitions have no leader while its coordinator still
runs. So it is switched off (node.py), and a node that was stopped leaves a session, like one that was killed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pipeline.broker.directories import explain_os_errors, make_dir
from pipeline.broker.node import (
    SCRATCH,
    JavaRuntime,
    controller_properties,
    format_command,
    properties,
    run_command,
)
from pipeline.broker.processes import end, is_gone, spawn
from pipeline.broker.reporting import SHOWN_LINES, BrokerError, Report, StepProgress, died, last_lines
from pipeline.broker.state import BrokerState, NodeState, node_dir, write_state
from pipeline.broker.wire import View, view_of
from pipeline.ports import Deadline, SystemClock

__all__ = [
    "CLEAN_MARK",
    "LOG",
    "are_over",
    "end_last_run",
    "end_sessions",
    "may_have_session",
    "prepare",
    "run",
    "stop",
    "wait_until_serving",
]

LOG = "broker.log"
DATA = "data"

_FORMAT_S = 60.0
_SERVE_S = 90.0
_POLL_S = 0.05
_FAILED_GRACE_S = 5.0
_STOP_GRACE_S = 20.0

# A broker writes it after it has flushed and closed its records, and removes it at its start.
CLEAN_MARK = ".kafka_cleanshutdown"
_LOG = "sessions.log"
_WAIT_S = 60.0
_GRACE_S = 2.0

_REGISTERED = re.compile(r"Replayed (?:initial )?RegisterBrokerRecord .*?\(brokerId=(\d+),.*?\bfenced=(\w+)")
_CHANGED = re.compile(
    r"Replayed BrokerRegistrationChangeRecord .*?\(brokerId=(\d+), brokerEpoch=(\d+), fenced=(-?1)\b"
)
_ACTIVE = "Performing controller activation"


def may_have_session(data: Path) -> bool:
    """Whether the node with these records has run. Kafka writes checkpoints while it runs."""
    return (data / "recovery-point-offset-checkpoint").exists()


def are_over(logs: Sequence[str]) -> bool:
    """Whether the controllers with these logs agree that no broker is alive.

    The active controller has all decisions that were committed before it became active. Its later decisions are
    committed once the other controllers also have them.
    """
    return any(_ended_by(log, logs) for log in logs)


def _ended_by(log: str, logs: Sequence[str]) -> bool:
    before, active, since = log.rpartition(_ACTIVE)
    if not active:
        return False
    alive: dict[str, bool] = {}
    for line in before.splitlines() + since.splitlines():
        if found := _REGISTERED.search(line):
            alive[found[1]] = found[2] == "false"
        elif found := _CHANGED.search(line):
            alive[found[1]] = found[3] == "-1"
    decided = set(_CHANGED.findall(since))
    return not any(alive.values()) and all(decided <= set(_CHANGED.findall(other)) for other in logs)


def end_sessions(runtime: JavaRuntime, data_dir: Path, state: BrokerState, report: Report) -> None:
    """Run the controllers of a stopped cluster until all of them have fenced every broker."""
    report(StepProgress("ending the sessions of its last run"))
    logs = {node.id: node_dir(data_dir, node.id) / _LOG for node in state.nodes}
    started: dict[int, int] = {}
    try:
        for node in state.nodes:
            directory = node_dir(data_dir, node.id)
            with explain_os_errors(directory):
                text = controller_properties(state, node, directory / "data")
                (directory / "server.properties").write_text(text, encoding="ascii")
                logs[node.id].unlink(missing_ok=True)
            started[node.id] = spawn(run_command(runtime, len(state.nodes), directory), logs[node.id])
            write_state(data_dir, state.with_pids(started))
        _wait(data_dir, started, list(logs.values()))
    finally:
        end({pid: node_dir(data_dir, node) for node, pid in started.items()}, grace_s=_GRACE_S)
        write_state(data_dir, state.with_pids(dict.fromkeys(started, 0)))


def _wait(data_dir: Path, started: dict[int, int], logs: Sequence[Path]) -> None:
    deadline = Deadline(SystemClock(), _WAIT_S, _POLL_S)
    while not are_over([_text(log) for log in logs]):
        for node, pid in started.items():
            if is_gone(pid, node_dir(data_dir, node)):
                raise died(node_dir(data_dir, node) / _LOG, node)
        if not deadline.pause():
            raise BrokerError(
                f"ending the sessions of Kafka's last run took over {_WAIT_S:.0f} s",
                hint=f"its log: {logs[0]}; --fresh starts an empty broker (it deletes the records of this one)",
            )


def _text(log: Path) -> str:
    with explain_os_errors(log):
        return log.read_text(errors="replace")


def prepare(
    runtime: JavaRuntime,
    data_dir: Path,
    state: BrokerState,
    nodes: Sequence[NodeState],
    report: Report,
    settings: Mapping[str, str] | None = None,
) -> BrokerState:
    """Write the settings of these nodes, with additional ones. Format the storage of a new cluster."""
    for node in nodes:
        directory = node_dir(data_dir, node.id)
        make_dir(directory / SCRATCH)
        log = directory / LOG
        with explain_os_errors(directory):
            text = properties(state, node, directory / DATA, settings)
            (directory / "server.properties").write_text(text, encoding="ascii")
            if log.exists():
                # Keep one older log: the previous run may have crashed.
                log.replace(log.with_suffix(".log.1"))
    if state.formatted:
        return state
    report(StepProgress("formatting the storage"))
    with ThreadPoolExecutor(len(state.nodes)) as pool:
        list(pool.map(lambda node: _format(runtime, data_dir, state, node), state.nodes))
    state = msgspec.structs.replace(state, formatted=True)
    write_state(data_dir, state)
    return state


def end_last_run(runtime: JavaRuntime, data_dir: Path, state: BrokerState, report: Report) -> None:
    """End the broker sessions of the last run, if there was one. No node may be running."""
    if any(may_have_session(node_dir(data_dir, node.id) / DATA) for node in state.nodes):
        end_sessions(runtime, data_dir, state, report)


def run(
    runtime: JavaRuntime, data_dir: Path, state: BrokerState, nodes: Sequence[NodeState], report: Report
) -> Mapping[int, int]:
    """Start these nodes and wait until the cluster serves. Stop them on any failure, and on Ctrl-C.

    Returns the process ids by node id.
    """
    report(StepProgress("starting Kafka" if len(nodes) == 1 else f"starting {len(nodes)} Kafka nodes"))
    started: dict[int, int] = {}
    try:
        for node in nodes:
            directory = node_dir(data_dir, node.id)
            started[node.id] = spawn(run_command(runtime, len(state.nodes), directory), directory / LOG)
            write_state(data_dir, state.with_pids(started))
        wait_until_serving(data_dir, state, started)
    except BaseException:
        end({pid: node_dir(data_dir, node_id) for node_id, pid in started.items()}, grace_s=_FAILED_GRACE_S)
        write_state(data_dir, state.with_pids(dict.fromkeys(started, 0)))
        raise
    return started


def stop(data_dir: Path, pids: Mapping[int, int]) -> None:
    """Stop these nodes (id -> process id) and wait until their processes have ended."""
    nodes = {pid: node_dir(data_dir, node_id) for node_id, pid in pids.items()}
    if len(nodes) == 1:
        end(nodes, grace_s=_STOP_GRACE_S)
    else:
        end(nodes, grace_s=_STOP_GRACE_S, harmless=_closed)


def _closed(directory: Path) -> bool:
    """Whether the node has flushed and closed its records: it then writes a mark, which its next start removes.

    Later only its controller shuts down. The last controllers wait 5 s for a majority that has already stopped.
    """
    return (directory / DATA / CLEAN_MARK).exists()


def wait_until_serving(data_dir: Path, state: BrokerState, started: Mapping[int, int]) -> None:
    """Wait until every node reports all nodes. Raises BrokerError if one of `started` (id -> pid) ends before."""
    everyone = frozenset(node.id for node in state.nodes)
    waiting = list(state.nodes)
    deadline = Deadline(SystemClock(), _SERVE_S, _POLL_S)
    while waiting:
        for node_id, pid in started.items():
            if is_gone(pid, node_dir(data_dir, node_id)):
                raise died(node_dir(data_dir, node_id) / LOG, node_id)
        view = view_of(waiting[0].port)
        if view is not None:
            _require_cluster(view, state, waiting[0])
            if view.node_ids == everyone:
                waiting.pop(0)
                continue
        if not deadline.pause():
            log = node_dir(data_dir, waiting[0].id) / LOG
            raise BrokerError(
                f"node {waiting[0].id} does not serve on port {waiting[0].port} after {_SERVE_S:.0f} s\n"
                f"{last_lines(log, SHOWN_LINES)}",
                hint=f"the whole log: {log}",
            )


def _require_cluster(view: View, state: BrokerState, node: NodeState) -> None:
    if view.cluster_id != state.cluster_id:
        raise BrokerError(
            f"port {node.port} serves the cluster {view.cluster_id}, not {state.cluster_id}, which broker.json names",
            hint="the records are another cluster's: choose its --data-dir, or add --fresh to start an empty broker",
        )


def _format(runtime: JavaRuntime, data_dir: Path, state: BrokerState, node: NodeState) -> None:
    settings = node_dir(data_dir, node.id) / "server.properties"
    try:
        done = subprocess.run(  # noqa: S603 - this module builds the whole command
            format_command(runtime, state, settings),
            capture_output=True,
            text=True,
            timeout=_FORMAT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerError(
            f"formatting {settings.parent} took over {_FORMAT_S:.0f} s",
            hint="the machine or its disk is too busy: end other programs, and start again",
        ) from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip().splitlines()[-SHOWN_LINES:]
        raise BrokerError(
            f"Kafka's storage tool could not format {settings.parent} (exit {done.returncode})\n"
            + "\n".join(output),
            hint="add --fresh to start an empty broker (it deletes the records of this one)",
        )

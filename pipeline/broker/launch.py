"""Starts a cluster whose state is written: formats the storage, starts the nodes, waits until they serve."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pipeline.broker.directories import explain_os_errors, make_dir
from pipeline.broker.errors import SHOWN_LINES, BrokerError, died, last_lines
from pipeline.broker.node import SCRATCH, JavaRuntime, format_command, properties, run_command
from pipeline.broker.probe import View, view_of
from pipeline.broker.processes import end, is_gone, spawn
from pipeline.broker.progress import Report, StepProgress
from pipeline.broker.sessions import CLEAN_MARK, end_sessions, may_have_session
from pipeline.broker.state import BrokerState, NodeState, node_dir, write_state
from pipeline.ports import Deadline, SystemClock

__all__ = ["LOG", "end_last_run", "prepare", "run", "stop", "wait_until_serving"]

LOG = "broker.log"
DATA = "data"

_FORMAT_S = 60.0
_SERVE_S = 90.0
_POLL_S = 0.05
_FAILED_GRACE_S = 5.0
_STOP_GRACE_S = 20.0


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
            hint="the records are another cluster's: choose its --data-dir, or add --fresh to begin anew",
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
            hint="add --fresh to begin anew (it deletes the records of this broker)",
        )

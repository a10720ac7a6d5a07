"""After a stop or a crash of every node, ends their old sessions before a broker starts.

Kafka counts a broker that has ended as alive for `broker.session.timeout.ms`. A broker that starts within that time
loads its transaction coordinator from metadata in which it leads its partitions, and completes the transactions that
its end interrupted. Then the old session ends and the partitions have no leader. Kafka treats them as deleted and
permanently skips the transaction markers (KAFKA-20734, in 4.3.1 and in 4.4.0). Readers then wait forever at a committed
transaction, and an abort of the next transaction drops its records.

A controlled shutdown of the only node has the same effect: its partitions have no leader while its coordinator still
runs. So it is switched off (node.py), and a node that was stopped leaves a session, like one that was killed.

This module runs the controllers alone, so that the sessions end while no coordinator runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.broker.directories import explain_os_errors
from pipeline.broker.errors import BrokerError, died
from pipeline.broker.node import JavaRuntime, controller_properties, run_command
from pipeline.broker.processes import end, is_gone, spawn
from pipeline.broker.progress import Report, StepProgress
from pipeline.broker.state import BrokerState, node_dir, write_state
from pipeline.ports import Deadline, SystemClock

__all__ = ["CLEAN_MARK", "are_over", "end_sessions", "may_have_session"]

# A broker writes it after it has flushed and closed its records, and removes it at its start.
CLEAN_MARK = ".kafka_cleanshutdown"
_LOG = "sessions.log"
_WAIT_S = 60.0
_GRACE_S = 2.0
_POLL_S = 0.05

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
                hint=f"its log: {logs[0]}; --fresh begins anew (it deletes the records of this broker)",
            )


def _text(log: Path) -> str:
    with explain_os_errors(log):
        return log.read_text(errors="replace")

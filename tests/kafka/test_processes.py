"""`pipeline worker --processes`: kills of one process, and of all processes with their supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import DEADLINE_S, STARTS_S, Workbench
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

PROCESSES = 3
PARTITIONS = 4


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """One group of four tasks, so that each of three processes has at least one."""
    name = unique_name[-40:].strip("-")
    workbench = Workbench(kafka.bootstrap_servers, name, tmp_path, groups=("main",), partitions=PARTITIONS)
    yield workbench
    workbench.close()


def test_a_killed_process_comes_back_on_its_disk_and_results_are_exact(bench: Workbench) -> None:
    """The other processes must continue meanwhile, and a stop must still be clean."""
    supervisor = _start(bench)
    bench.send(400)
    bench.wait_for_outputs(supervisor)
    victim = bench.state_dir / "process.2" / bench.prefix / ".worker"
    pid = int(victim.read_text())
    assert pid in _children(supervisor)
    had = _live(bench, "w-2")
    assert had
    _until(bench, lambda: _watched(bench, "w-2"))
    # Otherwise its note about the end of the process may come first, and no peer reports a process that has left.
    supervisor.send_signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    _until(bench, lambda: any(line["event"] == "peer_died" and line["peer"] == "w-2" for line in _log(bench)))
    supervisor.send_signal(signal.SIGCONT)
    bench.send(400)
    _until(bench, lambda: _live(bench, "w-2") > had)  # the others may have taken over its tasks
    bench.send(400)
    bench.wait_for_outputs(supervisor)
    assert int(victim.read_text()) != pid
    assert bench.stop(supervisor) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()
    (ended,) = [line for line in _log(bench) if line["event"] == "worker_exited"]
    assert (ended["worker"], ended["exit_status"]) == ("w-2", "SIGKILL")
    assert all("worker" in line for line in _log(bench))


def test_processes_end_with_their_supervisor_and_the_next_one_continues(bench: Workbench) -> None:
    """Orphaned processes would block the state directory for the next supervisor, which may have another N."""
    supervisor = _start(bench)
    bench.send(200)
    bench.wait_for_outputs(supervisor)
    children = _children(supervisor)
    assert len(children) == PROCESSES
    supervisor.kill()
    supervisor.wait()
    _until(bench, lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    bench.send(200)
    fewer = _start(bench, processes=2)
    bench.wait_for_outputs(fewer)
    assert bench.stop(fewer) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()


@pytest.mark.kills
def test_of_two_supervisors_with_one_worker_id_one_is_left_and_runs_everything(bench: Workbench) -> None:
    """With a copied configuration, each supervisor would restart what the other displaced, without any progress."""
    older = _start(bench, processes=2)
    younger = bench.worker(
        "--processes", "2", "--worker-id", "w", "--commit-interval-ms", "20",
        "--state-dir", str(bench.state_dir / "younger"),
    )  # fmt: skip
    bench.send(200)
    assert older.wait(DEADLINE_S) == 5, bench.log.read_text()
    bench.send(200)
    bench.wait_for_outputs(younger)
    given_up = [line["worker"] for line in _log(bench) if line["event"] == "worker_not_restarted"]
    assert sorted(given_up) == ["w-1", "w-2"]
    assert not any(line["event"] == "worker_exited" for line in _log(bench))
    assert bench.stop(younger) == 0, bench.log.read_text()
    assert bench.outputs() == bench.expected()


def _start(bench: Workbench, processes: int = PROCESSES) -> subprocess.Popen[bytes]:
    """Start a supervisor, and wait until every task is live and every process has one."""
    begun = len(bench.log.read_text()) if bench.log.exists() else 0
    supervisor = bench.worker("--processes", str(processes), "--worker-id", "w", "--commit-interval-ms", "20")

    def live() -> list[dict[str, str]]:
        lines = map(_parsed, bench.log.read_text()[begun:].splitlines())
        return [line for line in lines if line.get("event") == "task_live"]

    _until(bench, lambda: len(live()) >= PARTITIONS and len({line["worker"] for line in live()}) == processes)
    return supervisor


def _children(supervisor: subprocess.Popen[bytes]) -> list[int]:
    text = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def _live(bench: Workbench, worker: str) -> int:
    """The number of tasks that have become live on the process."""
    return sum(line["event"] == "task_live" and line["worker"] == worker for line in _log(bench))


def _watched(bench: Workbench, worker: str) -> bool:
    """Whether a peer is connected to the process."""
    done = bench.command("status", bench.prefix, "--json", "--kafka", bench.servers)
    workers = json.loads(done.stdout or "{}").get("workers", [])
    return any(each["watched"] for each in workers if each["worker"] == worker)


def _log(bench: Workbench) -> list[dict[str, str]]:
    return [line for line in map(_parsed, bench.log.read_text().splitlines()) if line]


def _parsed(line: str) -> dict[str, str]:
    if not line.startswith("{"):
        return {}
    try:
        parsed: dict[str, str] = json.loads(line)
    except json.JSONDecodeError:
        return {}  # the line is incomplete
    return parsed


def _until(bench: Workbench, condition: Callable[[], bool]) -> None:
    wait_until(condition, bench.log.read_text, STARTS_S)

"""Makes one node of a local Kafka a stale leader: it loses its controllers, and serves clients. `stale_leader`.

The threads of the node that talk to the controllers are stopped with ptrace, which ends with this process: the
controllers miss the node's heartbeats and elect other leaders, and the node does not learn of it. (Thread names:
kafka.server.KafkaRaftServer and NodeToControllerChannelManagerImpl. ptrace(2): PTRACE_SEIZE, PTRACE_INTERRUPT.)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.broker import LocalKafka
from tests.support.waiting import wait_until

__all__ = ["active_controller", "leader_of", "may_trace", "stale_leader"]

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_DEPOSED_S = 60.0  # the session of a broker is 9 s
_ANSWER_S = 5.0
_TRIES = 5
_ANSWERS = 3


def may_trace() -> bool:
    """Whether this process may stop threads of other processes: only as root."""
    return os.geteuid() == 0


def leader_of(servers: str, topic: str, partition: int) -> int:
    """The leader according to the brokers of `servers`, through a new client; -1 if none answers."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    try:
        found = admin.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
    except KafkaException:
        return -1
    return int(found[partition].leader) if partition in found else -1


def active_controller(cluster: LocalKafka) -> int:
    """The node whose log has the latest message that it leads the controllers."""
    newest = max(
        (line[:30], node.id)
        for node in cluster.status().nodes
        for line in node.log.read_text(errors="replace").splitlines()
        if "Completed transition to Leader(" in line
    )
    return newest[1]


@contextmanager
def stale_leader(cluster: LocalKafka, node: int, topic: str, partition: int) -> Iterator[str]:
    """Depose `node`, the leader of the partition. Yields the addresses of the others, which have another leader."""
    found = {each.id: each for each in cluster.status().nodes}
    servers = {each.id: f"127.0.0.1:{each.port}" for each in found.values()}
    others = ",".join(server for number, server in servers.items() if number != node)
    names = f"kafka-{node}-raft-ou", f"broker-{node}-to-con"

    def stale() -> bool:
        return leader_of(servers[node], topic, partition) == node

    # ptrace is bound to the thread that seized: all calls come from one thread.
    with ThreadPoolExecutor(1, "tracer") as tracer:
        stopped = _stop_safely(tracer, found[node].pid, names, stale)
        try:
            wait_until(
                lambda: leader_of(others, topic, partition) not in {node, -1},
                lambda: f"another leader of {topic}[{partition}]",
                _DEPOSED_S,
            )
            wait_until(stale, lambda: f"node {node} to answer, and to believe that it leads", _DEPOSED_S)
            yield others
            wait_until(stale, lambda: f"node {node} to believe still that it leads", _DEPOSED_S)
        finally:
            tracer.submit(_resume, stopped).result()
    wait_until(
        lambda: leader_of(servers[node], topic, partition) == leader_of(others, topic, partition),
        lambda: f"node {node} to be one like the others",
        _DEPOSED_S,
    )


def _stop_safely(
    tracer: ThreadPoolExecutor, pid: int, names: Sequence[str], answers: Callable[[], bool]
) -> list[int]:
    """Stop the threads only outside of Java code, where a stopped thread would block every pause of the JVM."""
    for _ in range(_TRIES):
        stopped = tracer.submit(_stop, pid, names).result()
        assert len(stopped) >= len(names), f"no threads of these names: {names}"
        if all(answers() for _ in range(_ANSWERS)):
            return stopped
        tracer.submit(_resume, stopped).result()
    raise AssertionError("the node answered no more whenever its threads were stopped")


def _stop(pid: int, names: Sequence[str]) -> list[int]:
    stopped = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip().startswith(tuple(names)) and _waits(task):
            thread = int(task.name)
            _ptrace(_SEIZE, thread)
            _ptrace(_INTERRUPT, thread)
            os.waitpid(thread, _WALL)
            stopped.append(thread)
    return stopped


def _waits(task: Path) -> bool:
    """Wait until the thread is in a blocking system call, as it is most of the time."""
    wait_until(
        lambda: (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "S", lambda: "a sleeping thread"
    )
    return True


def _resume(threads: Sequence[int]) -> None:
    for thread in threads:
        _ptrace(_DETACH, thread)


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x} of thread {thread}: {os.strerror(code)}")

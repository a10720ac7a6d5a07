"""Randomness, threads, file descriptors and facts about processes in production.

Only this module uses randomness and threads for the runtime.

If the other workers end, a worker may have to run every task of its app. A process that reaches its limit of file
descriptors while it takes over tasks cannot open sockets and states. That looks as if Kafka were unreachable. So a
start raises the soft limit, and is refused if the hard limit is too low (`require_descriptors`).

The figures were measured with workers of 10 to 300 tasks on 1 and on 3 brokers, on confluent-kafka 2.14 and rocksdict
0.3; `tests/kafka/test_descriptors.py` compares them with a worker. A Kafka client has a pipe (two descriptors) and
at most one socket for each broker.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.inputs import default_tasks
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError
from pipeline.ports import Cluster, TopicInfo

__all__ = [
    "START_TICKS",
    "Demand",
    "SystemRandom",
    "ThreadExecutor",
    "demand_of",
    "process_began_s",
    "process_stat",
    "raise_limit",
    "require_descriptors",
]

T = TypeVar("T")

# Steps mostly wait for a broker, so there can be many threads. Each step works on one task or reads metadata.
MAX_THREADS = 32
START_TICKS = 19  # the field of `process_stat` with the start of the process, in ticks since the boot

_CLIENT = 5  # of a Kafka client, in addition to those per broker
_PER_BROKER = 3
_PROCESS = 10  # the process itself; its clients for metadata, membership and notes are counted as clients
_PROCESS_CLIENTS = 4
_STATE = 7  # of RocksDB, in addition to its table files: lock, log, manifest, write-ahead log, directories
_NEW_FILES = 8  # table files of a state that are created after the start
_RESERVE = 100  # checkpoints, databases, and what handlers open themselves
_PEERS = 4 + 16 + 16  # the listener and its wake-up, watched processes, and connections of watchers
_HTTP_CLIENTS = 2  # of the HTTP port: metadata, and a reader
_HTTP = 2 * 64 + 20  # its connections, as many reads of journals, and its own
_MOST = 1 << 20  # the limit of Linux, unless fs.nr_open is raised


def process_stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` after the name of the process. Raises OSError."""
    content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return content.rpartition(")")[2].split()


def process_began_s() -> float | None:
    """The start of this process in seconds of `time.monotonic`; None if the system does not provide it."""
    try:
        since_boot_s = int(process_stat(os.getpid())[START_TICKS]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


class SystemRandom:
    """Random numbers of the operating system."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret


class ThreadExecutor:
    """Runs steps on threads, in the order in which they were submitted."""

    def __init__(self, threads: int = MAX_THREADS) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pipeline")

    def submit(self, step: Callable[[], T]) -> Future[T]:
        return self._pool.submit(step)

    def close(self) -> None:
        self._pool.shutdown(wait=True)


@dataclass(frozen=True, slots=True)
class Demand:
    """The numbers from which the need for descriptors is computed.

    Args:
        tasks: The tasks of all groups with a journal.
        groups: All groups, with those of sinks.
        brokers: The brokers of the cluster.
        files: The table files of the local states.
        http: Whether the worker has an HTTP port.
    """

    tasks: int
    groups: int
    brokers: int
    files: int = 0
    http: bool = False

    @property
    def descriptors(self) -> int:
        """The number of descriptors if every task runs here, and as many tasks are restored as there are threads."""
        client = _CLIENT + _PER_BROKER * self.brokers
        of_task = client + _STATE + _NEW_FILES
        # A task that is being restored has a client that reads its journal, and no new table files yet.
        restores = min(self.tasks, MAX_THREADS) * (client - _NEW_FILES)
        clients = _PROCESS_CLIENTS + self.groups + _HTTP_CLIENTS * self.http
        fixed = _PROCESS + _RESERVE + _PEERS + _HTTP * self.http
        return fixed + self.tasks * of_task + restores + clients * client + self.files


def demand_of(app: DeclaredApp, cluster: Cluster, state_dir: Path, *, http: bool = False) -> Demand:
    """The demand of an app. Topics that do not exist are ignored, because the start refuses them."""
    with_journal = [group for group in app.groups if not group.sinks]
    topics = cluster.describe([*app.topics, *(group.id.journal_topic for group in with_journal)])
    tasks = sum(_tasks_of(group, topics) for group in with_journal)
    files = sum(1 for _ in (state_dir / app.name).glob("*/*/*.sst"))
    return Demand(tasks, len(app.groups), cluster.brokers(), files, http)


def _tasks_of(group: DeclaredGroup, topics: Mapping[str, TopicInfo]) -> int:
    """The tasks of a group: those of its journal, or of its first start."""
    journal = topics.get(group.id.journal_topic)
    if journal is not None:
        return journal.partitions
    partitions = max(
        (topics[topic.name].partitions for topic in group.inputs if topic.name in topics), default=0
    )
    return min(partitions, group.tasks or default_tasks(partitions))


def raise_limit() -> int:
    """Raise this process's soft limit to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def require_descriptors(app: str, demand: Demand) -> None:
    """Raise the soft limit.

    Raises:
        ConfigError: The limit is below the demand. The error has the number and the commands that raise the limit.
    """
    limit = raise_limit()
    needed = demand.descriptors
    if needed <= limit:
        return
    tasks = counted(demand.tasks, "task")
    brokers = counted(demand.brokers, "broker")
    raise ConfigError(
        f"app {app} has {tasks} on {brokers}: a worker that runs them all may need {counted(needed, 'open file')}, "
        "and this "
        f"process may have {limit}",
        hint=f"raise the hard limit: `ulimit -n {needed}` before the start; LimitNOFILE={needed} in a systemd unit; "
        f"`--ulimit nofile={needed}:{needed}` for a container",
    )

"""What all cases of a run share: one Kafka, a temporary directory, and the systems' environments."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.environments import Environment
from benchmarks.peers.kafka import Topics
from benchmarks.peers.processes import PeerProcess
from benchmarks.peers.programs.plan import Plan
from benchmarks.peers.systems import System, command_of, environment_for
from pipeline.testing import LocalKafka

__all__ = ["Bench", "Job", "Turn", "opened"]


# A turn deletes its topics: their files would stay open for a minute, thousands of them with many partitions.
SETTINGS = {"log.segment.delete.delay.ms": "1000"}


@dataclass(frozen=True, slots=True)
class Job:
    """What a case gives to all of its systems.

    `prompt`: a system whose default is to commit every few seconds commits every 100 ms. `soft_files`: the soft limit
    of open files; 0 for the one of this process.
    """

    name: str
    records: int
    keys: int
    partitions: int = 4
    note_bytes: int = 0
    prompt: bool = False
    soft_files: int = 0


@dataclass(slots=True)
class Bench:
    """A running Kafka. `sources`: topics with input, which all turns of a case read."""

    topics: Topics
    directory: Path
    environments: dict[str, Environment]
    sources: set[str] = field(default_factory=set)

    def source(self, job: Job, records: int) -> str:
        """A topic with the first records of the input; created and loaded once."""
        topic = f"input-{job.name}-{job.records}-{job.keys}-{records}"
        if topic not in self.sources:
            self.topics.create([topic], job.partitions)
            self.topics.load(
                topic, range(records), job.keys, note_bytes=job.note_bytes, ids=job.name == "dedup"
            )
            self.sources.add(topic)
        return topic


class Turn:
    """One system and one job: its topics, its processes and its directory, which are gone at the end.

    `shared`: the turn reads the input of all turns. Otherwise it has a topic of its own, with `records` loaded.
    """

    def __init__(self, bench: Bench, job: Job, name: str, system: System, source: str, mark_at: int) -> None:
        self.bench, self.job, self.name, self.system, self.source = bench, job, name, system, source
        self.kind = system.job or job.name
        self.target = f"{name}-results"
        self.directory = bench.directory / name
        self.mark = self.directory / "mark"
        self._mark_at = mark_at
        self._processes: list[PeerProcess] = []

    def plan(self, worker: str) -> Plan:
        """The plan of a worker of this turn."""
        return Plan(
            job=self.kind,
            servers=self.bench.topics.servers,
            name=self.name,
            source=self.source,
            target=self.target,
            middle=f"{self.name}-by-branch" if self.kind == "two-stages" else "",
            state_dir=str(self.state_dir(worker)),
            worker=worker,
            mark=str(self.mark),
            mark_at=self._mark_at // self.system.processes,
            records=self.job.records,
            keys=self.job.keys,
            partitions=self.job.partitions,
            threads=self.system.threads,
            store_cache=self.system.store_cache,
            commit_ms=self.system.prompt_ms if self.job.prompt else 0,
        )

    def start(self, worker: str = "worker-1") -> PeerProcess:
        """Start a worker."""
        environment = self.bench.environments[self.system.environment]
        plan = self.plan(worker)
        process = PeerProcess(
            command_of(self.system, environment, plan),
            environment_for(plan, self.system),
            self.directory / f"{worker}.log",
            self.job.soft_files,
        )
        self._processes.append(process)
        return process

    def state_dir(self, worker: str) -> Path:
        """The directory of a worker's state."""
        return self.directory / worker

    def lose_disk(self, worker: str = "worker-1") -> None:
        """Delete the state of a worker that does not run."""
        shutil.rmtree(self.state_dir(worker), ignore_errors=True)

    def __enter__(self) -> Turn:
        self.directory.mkdir(parents=True)
        # faust-streaming sees a topic that it lets the broker create at first without partitions, and ends.
        names = [self.target, *(f"{self.name}-{table}-changelog" for table in self.system.tables)]
        if self.kind == "two-stages":
            names.append(self.plan("").middle)
        self.bench.topics.create(names, self.job.partitions)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.bench.topics.delete_all_but(self.bench.sources)


@contextmanager
def opened(environments: dict[str, Environment]) -> Iterator[Bench]:
    """Start a Kafka of this run."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-peers-")))
        kafka = stack.enter_context(LocalKafka(directory / "kafka", settings=SETTINGS))
        topics = Topics(kafka.bootstrap_servers)
        topics.warm_up()
        yield Bench(topics, directory, environments)

"""A partition with many timers that become due at once: what they cost, and how long another partition pauses.

One worker, two partitions with a task each. In each round:

    1 N records with different keys set N timers in partition 0, due between half an hour and an hour of event time
      later; when all are committed, the worker stops;
    2 it starts again, and records come to partition 1 every `PERIOD_S`, each with an output;
    3 a record comes to partition 0, an hour of event time later, and another one behind it. The first one is processed,
      and makes all timers due; the next one waits for all of them;
    4 when a reader of committed records has the output of the next one, the worker stops, and all outputs are counted.

The CPU time is that of the whole worker process: in 1 from its first task to the last commit, in 3 with the work for
partition 1. A pause is the time between two answers of partition 1 as the reader sees them, so at least `PERIOD_S`. The
commits of the drain are counted in the journal: those that remove due entries.

A round fails if a timer fired twice, not at all, with a wrong due time or out of order, if it fired before the late
record or after the next one, or if partition 1 paused for longer than BOUND_S.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from os import sysconf
from pathlib import Path

import msgspec
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError, timers_checks
from benchmarks.timers_checks import Drain, Fired, Firings, Schedule, judge
from benchmarks.timers_worker import LATE, NEXT, TIMERS, TimedEvent, answers_topic, events_topic, fired_topic
from pipeline import KafkaSettings
from pipeline.api.due_index import split_index_key
from pipeline.api.table import table_prefix
from pipeline.core.entry_body import split_row
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.kafka.clients import LOGGER
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import TopicSpec
from pipeline.processes.system import process_stat
from pipeline.runtime.commit.journal_reader import complete_entries
from pipeline.testing import LocalKafka

__all__ = ["ROUNDS", "TIMEOUT_S", "TIMERS_SET", "run"]

TIMERS_SET = 1_000_000
ROUNDS = 1
TIMEOUT_S = 900.0
PARTITIONS = 2
PERIOD_S = 0.02
ANSWERS = 100  # of partition 1 before the late record
NOTE_S = 5.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `set_us`: CPU time per timer that is set."""

    set_us: float
    fired: Fired
    drain: Drain
    problems: list[str]


def run(timers: int, rounds: int, timeout_s: float) -> int:
    """Measure and print; 1 if a rule is broken or a round takes longer than `timeout_s`. Progress is on stderr."""
    console = Console(highlight=False, markup=False)
    table = Table(
        *("round", "CPU µs to set", "CPU µs to fire", "drained in s", "commits", "most timers", "most KiB"),
        *("pause before, s", "pause, s"),
        box=None,
    )
    problems = []
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-bench-") as workspace,
        LocalKafka(Path(workspace) / "kafka") as kafka,
        closing(KafkaCluster(KafkaSettings(kafka.bootstrap_servers))) as cluster,
    ):
        for number in range(1, rounds + 1):
            directory = Path(workspace) / str(number)
            directory.mkdir()
            progress = _Progress(f"timers, round {number} of {rounds}", timeout_s)
            bench = _Bench(f"timers-{number}", kafka.bootstrap_servers, directory, cluster, timers, progress)
            try:
                found = bench.measure()
            except BenchmarkError as error:
                console.print(f"timers: FAILED in round {number}: {error}", soft_wrap=True)
                return 1
            problems += [f"round {number}: {problem}" for problem in found.problems]
            table.add_row(
                *(
                    str(number),
                    f"{found.set_us:.1f}",
                    f"{found.fired.cpu_us:.1f}",
                    f"{found.fired.drain_s:.2f}",
                ),
                *(f"{found.drain.commits:,}", f"{found.drain.most_timers:,}"),
                *(
                    f"{found.drain.most_bytes / 1024:,.0f}",
                    f"{found.fired.quiet_s:.2f}",
                    f"{found.fired.pause_s:.2f}",
                ),
            )
    console.print(table)
    for problem in problems:
        console.print(f"timers: FAILED: {problem}", soft_wrap=True)
    if not problems:
        console.print(
            f"timers: in each of {rounds} rounds, {timers:,} timers fired exactly once, in order and before the next "
            f"record; the other partition paused for at most {timers_checks.BOUND_S} s",
            soft_wrap=True,
        )
    return int(bool(problems))


class _Progress:
    """Says on stderr how far a round is, and ends one that takes too long."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._began_s = self._noted_s = time.monotonic()

    def check(self, text: str) -> None:
        """Print the progress every NOTE_S. Raises BenchmarkError after the time-out."""
        now = time.monotonic()
        if now - self._began_s > self._timeout_s:
            raise BenchmarkError(
                f"not finished after {self._timeout_s:,.0f} s: {text}. Pass a longer --timeout or fewer --timers"
            )
        if now - self._noted_s >= NOTE_S:
            self._noted_s = now
            self._console.print(f"{self._name}, {now - self._began_s:,.0f} s: {text}", soft_wrap=True)


class _Worker:
    """A process of `timers_worker`."""

    def __init__(self, name: str, servers: str, directory: Path) -> None:
        self._log = directory / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "benchmarks.timers_worker", name, servers, str(directory / "state")]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def is_live(self) -> bool:
        """Whether all tasks are live. Raises BenchmarkError if the process has ended."""
        self.check()
        return self._log.read_text().count('"task_live"') == PARTITIONS

    def cpu_s(self) -> float:
        """The CPU time of the process so far. Raises BenchmarkError if it has ended."""
        self.check()
        user, system = process_stat(self.process.pid)[11:13]
        return (int(user) + int(system)) / sysconf("SC_CLK_TCK")

    def check(self) -> None:
        """Raises BenchmarkError if the process has ended."""
        if self.process.poll() is not None:
            raise BenchmarkError(f"the worker has ended: {self._log.read_text()[-2_000:]}")


class _Trickle:
    """Sends events to partition 1 for as long as it is open, and notes when their outputs are seen."""

    def __init__(self, name: str, servers: str, start_ms: int) -> None:
        self._topic, self._start_ms = events_topic(name), start_ms
        self._stop = threading.Event()
        self._producer = _producer(servers)
        settings = KafkaSettings(servers, {"fetch.wait.max.ms": "10"})
        self._source = KafkaSources(settings).open(f"{name}-answers")
        self._source.assign({TopicPartition(answers_topic(name), 0): 0})
        self._threads = [threading.Thread(target=work) for work in (self._send, self._read)]
        self.seen_s: list[float] = []

    def __enter__(self) -> _Trickle:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._source.close()

    def pause_s(self, from_s: float, to_s: float) -> float:
        """The longest time between two answers, of those that overlap this time."""
        pauses = [
            after - before for before, after in pairwise(self.seen_s) if after >= from_s and before <= to_s
        ]
        return max(pauses, default=0.0)

    def _send(self) -> None:
        number = 0
        while not self._stop.wait(PERIOD_S):
            number += 1
            _send(self._producer, self._topic, "steady", TimedEvent(self._start_ms + number), 1)
        self._producer.flush(10)

    def _read(self) -> None:
        while not self._stop.is_set():
            if self._source.poll(1_000, 0.01).records:
                self.seen_s.append(time.monotonic())


class _Output:
    """The topic `fired`, as a reader of committed records sees it."""

    def __init__(self, name: str, servers: str, firings: Firings) -> None:
        self.place = TopicPartition(fired_topic(name), 0)
        settings = KafkaSettings(servers, {"fetch.wait.max.ms": "10"})
        self._source = KafkaSources(settings).open(f"{name}-fired")
        self._source.assign({self.place: 0})
        self._firings = firings
        self.position = 0

    def read(self) -> None:
        """Read what is there."""
        records = self._source.poll(5_000, 0.01).records
        now_s = time.monotonic()
        for record in records:
            self._firings.add((record.key() or b"").decode(), int(record.value() or b"0"), now_s)
            self.position = record.offset() + 1

    def close(self) -> None:
        self._source.close()


@dataclass
class _Bench:
    """One round, with topics and a state of its own."""

    name: str
    servers: str
    directory: Path
    cluster: KafkaCluster
    timers: int
    progress: _Progress

    def measure(self) -> Round:
        """Set the timers and fire them. Raises BenchmarkError."""
        topics = {events_topic(self.name): PARTITIONS, fired_topic(self.name): 1, answers_topic(self.name): 1}
        self.cluster.create([TopicSpec(topic, partitions) for topic, partitions in topics.items()])
        schedule = Schedule(self.timers, int(time.time() * 1000))
        firings, task = Firings(schedule), TaskId(self.name, "main", 0)
        with (
            closing(KafkaJournalReader(KafkaSettings(self.servers))) as reader,
            closing(_Output(self.name, self.servers, firings)) as output,
        ):
            set_s = self._set(schedule)
            start = reader.bounds(task.journal).stable_end
            if reader.bounds(output.place).stable_end:
                raise BenchmarkError("timers have fired before the late record was sent")
            found = self._fire(schedule, firings, output)
            firings.after_next += self._count(reader, output)
            drain = self._drain(reader, task, start)
        return Round(set_s / self.timers * 1e6, found, drain, judge(firings, found, drain))

    def _set(self, schedule: Schedule) -> float:
        """Set all timers; the CPU seconds of it."""
        place = TopicPartition(events_topic(self.name), 0)
        group = GroupId(self.name, "main").consumer_group
        with self._worker() as worker:
            cpu_s, producer = worker.cpu_s(), _producer(self.servers)
            for number in range(self.timers):
                event = TimedEvent(schedule.start_ms, schedule.due_ms(number))
                _send(producer, place.topic, schedule.key(number), event, 0)
                if number % 1_000 == 0:
                    worker.check()
                    self.progress.check(f"{number:,} of {self.timers:,} records are sent")
            while producer.flush(1):
                self.progress.check(f"{len(producer):,} of {self.timers:,} records are on their way")
            while (done := self.cluster.committed(group).get(place, 0)) < self.timers:
                worker.check()
                self.progress.check(f"{done:,} of {self.timers:,} timers are set")
                time.sleep(0.2)
            return worker.cpu_s() - cpu_s

    def _fire(self, schedule: Schedule, firings: Firings, output: _Output) -> Fired:
        """Send the late record and the next one, and read until the output of the next one."""
        with self._worker() as worker, _Trickle(self.name, self.servers, schedule.start_ms) as trickle:
            self._wait(worker, lambda: len(trickle.seen_s) > ANSWERS, "the other partition has few answers")
            began_s, cpu_s, producer = time.monotonic(), worker.cpu_s(), _producer(self.servers)
            for key in (LATE, NEXT):
                _send(producer, events_topic(self.name), key, TimedEvent(schedule.late_ms), 0)
            producer.flush(10)
            while not firings.next_s:
                output.read()
                worker.check()
                self.progress.check(f"{firings.count:,} of {self.timers:,} timers have fired")
            done_s, cpu_s = time.monotonic(), worker.cpu_s() - cpu_s
            self._wait(worker, lambda: trickle.seen_s[-1] > done_s, "the other partition does not answer")
        return Fired(
            cpu_s / self.timers * 1e6,
            firings.last_s - began_s,
            trickle.pause_s(trickle.seen_s[0], began_s - PERIOD_S),
            trickle.pause_s(began_s, done_s),
        )

    def _count(self, reader: KafkaJournalReader, output: _Output) -> int:
        """The outputs that are not read yet, of a worker that has stopped."""
        return sum(
            1 for _ in reader.read(output.place, output.position, reader.bounds(output.place).stable_end)
        )

    def _drain(self, reader: KafkaJournalReader, task: TaskId, start: int) -> Drain:
        """What the journal says about the drain, which begins at this offset."""
        source, sizes = table_prefix(TIMERS), []
        for entry in complete_entries(task, reader, start, reader.bounds(task.journal).stable_end):
            removed = 0
            for row, value in entry.entry.delta.items():
                if value is None:
                    found = split_index_key(split_row(row, entry.version, task.number)[1])
                    removed += found is not None and found[0] == source
            if removed:
                sizes.append((removed, entry.size))
            self.progress.check(f"the journal is read: {len(sizes)} commits of timers")
        timers, sizes_bytes = [each for each, _ in sizes], [each for _, each in sizes]
        return Drain(len(sizes), sum(timers), max(timers, default=0), max(sizes_bytes, default=0))

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        """A worker whose tasks are live. It is stopped by SIGTERM; killed if the body raises."""
        worker = _Worker(self.name, self.servers, self.directory)
        try:
            self._wait(worker, lambda: worker.is_live, "the worker starts")
            yield worker
            worker.process.terminate()
            while worker.process.poll() is None:
                self.progress.check("the worker stops")
                time.sleep(0.01)
        finally:
            worker.process.kill()
            worker.process.wait()

    def _wait(self, worker: _Worker, condition: Callable[[], bool], text: str) -> None:
        while not condition():
            worker.check()
            self.progress.check(text)
            time.sleep(0.01)


def _producer(servers: str) -> Producer:
    return Producer({"bootstrap.servers": servers, "linger.ms": 5, "logger": LOGGER})


def _send(producer: Producer, topic: str, key: str, event: TimedEvent, partition: int) -> None:
    """Send one event, when the producer has room for it."""
    while True:
        try:
            producer.produce(topic, msgspec.json.encode(event), key.encode(), partition)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)

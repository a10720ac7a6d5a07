"""The workbench of the worker tests: topics, input, worker processes, and the comparison with a fold."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import TopicSpec
from tests.support.checker import Checker, KafkaLog, Promise
from tests.support.kafka.kill_at import signal_of
from tests.support.kafka.producing import ordered_producer
from tests.support.kafka.reference import Reference
from tests.support.waiting import wait_until

PARTITIONS = 2
GROUPS = ("main", "counting")
DEADLINE_S = 60.0
STARTS_S = 2 * DEADLINE_S  # of several processes, which share the cores of a busy machine
# The maximum time until the markers of a decided transaction are in all of its partitions.
MARKERS_S = 30.0


class Workbench:
    """One test's topics on the broker, its state directory, and the worker processes it starts."""

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        *,
        groups: tuple[str, ...] = GROUPS,
        partitions: int = PARTITIONS,
        tasks: int | None = None,
        app: str = "tests.support.kafka.sums:app",
    ) -> None:
        self.servers = servers
        self.app = app
        self.senders = servers  # the brokers to which inputs are sent
        self.prefix = prefix
        self.groups = groups
        self.partitions = partitions
        self.tasks = tasks or partitions  # of each group
        self.state_dir = directory / "state"
        self.log = directory / "worker.log"
        self.environment: dict[str, str] = {}  # of the workers, beside our own
        self.sent: list[tuple[str, int]] = []
        self.reference = Reference(servers, prefix, groups, partitions, self.tasks)
        self._trigger = directory / "trigger"
        self._children: list[subprocess.Popen[bytes]] = []
        self._kafka = KafkaSettings(servers)
        cluster = KafkaCluster(self._kafka)
        cluster.create([TopicSpec(f"{prefix}-{name}", partitions) for name in ("amounts", "sums")])
        cluster.close()
        self._committed = self._open_log()
        self.checker = Checker(self._committed, *self.promises())

    def promises(self) -> tuple[Promise, ...]:
        """The outputs that the app writes for each input."""
        prefix = self.prefix
        return (Promise(f"{prefix}.main", f"{prefix}-amounts", f"{prefix}-sums", ids=False, row=True),)

    def send(self, count: int, keys: int = 20) -> None:
        """Produce `count` more inputs, spread over keys."""
        producer = ordered_producer(self.senders)
        for _ in range(count):
            number = len(self.sent)
            key = f"key-{number * 7 % keys}"
            self.sent.append((key, number))
            self.reference.sent(key, number)
            producer.produce(f"{self.prefix}-amounts", msgspec.json.encode({"n": number}), key)
            producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0

    def worker(self, *arguments: str, app: str = "") -> subprocess.Popen[bytes]:
        """Start `pipeline worker` as a process. `app`: another one than that of the workbench."""
        return self._spawn(
            "-m", "pipeline", "worker", app or self.app, "--kafka", self.servers,
            "--state-dir", str(self.state_dir), *arguments,
        )  # fmt: skip

    def outlive(self, zombie: subprocess.Popen[bytes]) -> None:
        """Take over the tasks of a stopped worker, let it continue until it leaves, and check the results."""
        self.state_dir = self.state_dir.with_name("of-the-successor")
        successor = self.worker("--worker-id", "killed", "--commit-interval-ms", "20")
        self.send(100)
        self.catch_up(successor)
        zombie.send_signal(signal.SIGCONT)
        self.send(100)
        zombie.wait(DEADLINE_S)
        self.send(100)
        self.catch_up(successor)
        assert self.stop(successor) == 0, self.log.read_text()
        self.check()

    def kill_at_random(self, chance: random.Random, inputs: int, within: int) -> None:
        """Let a worker process new inputs, and kill it once a random number of them, below `within`, has an output."""
        done = len(self.sent)
        self.send(inputs)
        worker = self.worker("--commit-interval-ms", "5")
        self.wait_for_outputs(worker, at_least=done + chance.randrange(1, within))
        worker.kill()
        assert worker.wait() == -signal.SIGKILL

    def kill_while_running(self, point: str, nth: int) -> None:
        """Let a worker recover and catch up, and check.

        Then it kills itself at a point under new input; check again.
        """
        self._trigger.unlink(missing_ok=True)
        worker = self._killed_at(point, nth, str(self._trigger))
        self.catch_up(worker)
        self._trigger.touch()
        deadline = time.monotonic() + DEADLINE_S
        while not _ended(worker, within_s=0.03):
            assert time.monotonic() < deadline, f"{point} was not reached:\n{self.log.read_text()}"
            self.send(40)
        self._check_killed(worker, point)

    def stopped_while_running(self, point: str) -> subprocess.Popen[bytes]:
        """Let a worker catch up. Then it stops itself at a point under new input, as by SIGSTOP."""
        self._trigger.unlink(missing_ok=True)
        self.environment["KILL_WITH"] = "SIGSTOP"
        worker = self._killed_at(point, 1, str(self._trigger))
        del self.environment["KILL_WITH"]
        self.catch_up(worker)
        self._trigger.touch()

        def stopped() -> bool:
            self.send(40)
            return (
                Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
                == "T"
            )

        wait_until(stopped, self.log.read_text)
        return worker

    def stopped_while_resting(self) -> subprocess.Popen[bytes]:
        """Let a worker catch up. Then it is stopped, after the producers of all its tasks were closed."""
        worker = self._killed_at("BEFORE_BEGIN", 1, str(self._trigger))
        self.catch_up(worker)
        wait_until(lambda: self.log.read_text().count("idle_producers_closed") > 1, self.log.read_text)
        worker.send_signal(signal.SIGSTOP)
        return worker

    def killed_among_retries(self, point: str) -> None:
        """Let a worker that does not process all inputs kill itself at a point, and check what it leaves."""
        self._trigger.unlink(missing_ok=True)
        before = self._lived()
        worker = self._killed_at(point, 1, str(self._trigger))
        wait_until(lambda: self._lived() >= before + self.tasks * len(self.groups), self.log.read_text)
        self._trigger.touch()
        while not _ended(worker, within_s=0.03):
            self.send(40)
        self._check_killed(worker, point)

    def kill_while_stopping(self, point: str, nth: int) -> None:
        """Let a worker recover and catch up. Then stop it; it kills itself at a point of the stop."""
        self._trigger.unlink(missing_ok=True)
        worker = self._killed_at(point, nth, str(self._trigger))
        self.catch_up(worker)
        self._trigger.touch()
        worker.send_signal(signal.SIGTERM)
        assert _ended(worker, within_s=DEADLINE_S), f"{point} was not reached:\n{self.log.read_text()}"
        self._check_killed(worker, point)

    def kill_while_starting(self, point: str, nth: int) -> None:
        """Start a worker that kills itself at a point of its start, and check what it leaves."""
        worker = self._killed_at(point, nth, "-")
        assert _ended(worker, within_s=DEADLINE_S), f"{point} was not reached:\n{self.log.read_text()}"
        self._check_killed(worker, point)

    def catch_up(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until the worker has committed and applied all inputs, and compare with the fold."""
        try:
            self.reference.check_caught_up(self.state_dir, lambda: not _ended(worker, within_s=0.03))
        except AssertionError as error:
            error.add_note(self.log.read_text())
            raise

    def counted(self) -> int:
        """The number of inputs that the counting group has applied, from its table, because it has no outputs."""
        return sum(int(str(count)) for count in self.table("counting").values())

    def _check_killed(self, worker: subprocess.Popen[bytes], point: str) -> None:
        assert worker.wait() == -signal_of(point), self.log.read_text()
        self.reference.check_at_rest(self.state_dir)
        self.checker.check(settle_s=MARKERS_S)

    def _killed_at(self, point: str, nth: int, trigger: str) -> subprocess.Popen[bytes]:
        return self._spawn(
            "-m", "tests.support.kafka.kill_at", point, str(nth), trigger, self.servers, str(self.state_dir)
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pipeline ...` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def run_to_end(self, *arguments: str) -> int:
        """Run another Python program to its end. Returns its exit code."""
        return self._spawn(*arguments).wait(DEADLINE_S)

    def wait_for_outputs(
        self, worker: subprocess.Popen[bytes], at_least: int | None = None, within_s: float = DEADLINE_S
    ) -> None:
        """Wait until this many outputs are committed; default: as many as inputs were sent."""
        wanted = len(self.sent) if at_least is None else at_least
        with self._reader() as read:
            count = 0
            deadline = time.monotonic() + within_s
            while count < wanted:
                count += len(read())
                assert worker.poll() is None, f"the worker ended:\n{self.log.read_text()}"
                assert time.monotonic() < deadline, f"{count} of {wanted}:\n{self.log.read_text()}"

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """Send SIGTERM. Returns the exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(DEADLINE_S)

    def finish(self) -> None:
        """Run a worker until all groups have processed all inputs, stop it with SIGTERM, and check."""
        lived = self._lived()
        worker = self.worker()
        self.wait_for_outputs(worker)
        # Without inputs left, it may not handle signals yet.
        due = lived + self.tasks * len(self.groups)
        wait_until(lambda: self._lived() >= due, self.log.read_text)
        if "counting" in self.groups:
            wait_until(lambda: self.counted() >= len(self.sent), self.log.read_text)
        assert self.stop(worker) == 0, self.log.read_text()
        self.check()
        self.verify_at_rest()

    def _lived(self) -> int:
        """The number of tasks that have become live so far."""
        return self.log.read_text().count("task_live") if self.log.exists() else 0

    def outputs(self) -> dict[str, list[tuple[int, int]]]:
        """The committed outputs by key, in order: (count, total)."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        places = [TopicPartition(f"{self.prefix}-sums", p) for p in range(self.partitions)]
        ends = KafkaJournalReader(self._kafka)
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "reader", "isolation.level": "read_committed"}
        )
        try:
            left = {place: end for place, end in ends.stable_ends(places).items() if end}
            consumer.assign([ClientPartition(*place, 0) for place in left])
            deadline = time.monotonic() + DEADLINE_S
            while left:
                assert time.monotonic() < deadline, f"outputs cannot be read: {left}"
                for message in consumer.consume(10_000, 0.1):
                    assert message.error() is None, message.error()
                    document = msgspec.json.decode(message.value() or b"")
                    found[(message.key() or b"").decode()].append((document["count"], document["total"]))
                for at in consumer.position([ClientPartition(*place) for place in left]):
                    place = TopicPartition(at.topic, at.partition)
                    if at.offset >= left[place]:
                        del left[place]
        finally:
            consumer.close()
            ends.close()
        return dict(found)

    def expected(self) -> dict[str, list[tuple[int, int]]]:
        """The expected outputs, from a fold over the inputs."""
        folded: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for key, number in self.sent:
            count, total = folded[key][-1] if folded[key] else (0, 0)
            folded[key].append((count + 1, total + number))
        return dict(folded)

    def table(self, group: str) -> dict[str, object]:
        """The table of a group by key, read with `pipeline table show`; also while a worker runs."""
        return self.reference.table(self.state_dir, group)

    def check(self) -> None:
        """Check that outputs and tables are equal to the fold, and that the committed records are a correct history."""
        self.checker.check(settle_s=MARKERS_S)
        expected = self.expected()
        assert self.outputs() == expected
        assert self.table("main") == {
            key: {"count": values[-1][0], "total": values[-1][1]} for key, values in expected.items()
        }
        if "counting" in self.groups:
            assert self.table("counting") == {key: len(values) for key, values in expected.items()}

    def verify_at_rest(self) -> None:
        """Check without a worker: committed records are a correct history, and no transaction is open."""
        with closing(self._open_log()) as fresh:
            self.checker.finish(fresh, settle_s=MARKERS_S)

    def _open_log(self) -> KafkaLog:
        own = (f"{self.prefix}-", f"{self.prefix}.")
        return KafkaLog(self.servers, lambda topic: topic.startswith(own))

    def close(self) -> None:
        """End the processes that this test started."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        self._committed.close()

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._children.append(child)
        return child

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.names(), **self.environment}

    def names(self) -> dict[str, str]:
        """The names and numbers of this app, as the environment of a process."""
        names = {
            "SUMS_PREFIX": self.prefix,
            "SUMS_GROUPS": " ".join(self.groups),
            "KILL_APP": self.app,
        }
        return names | ({"SUMS_TASKS": str(self.tasks)} if self.tasks != self.partitions else {})

    @contextmanager
    def _reader(self) -> Iterator[_Read]:
        source = KafkaSources(self._kafka).open(f"{self.prefix}-reader")
        source.assign({TopicPartition(f"{self.prefix}-sums", p): 0 for p in range(self.partitions)})

        def read() -> list[tuple[str, bytes]]:
            polled = source.poll(10_000, 0.1)
            assert not polled.failures
            return [(record.key().decode(), record.value()) for record in polled.records]

        try:
            yield read
        finally:
            source.close()


class _Read(Protocol):
    def __call__(self) -> list[tuple[str, bytes]]: ...


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True

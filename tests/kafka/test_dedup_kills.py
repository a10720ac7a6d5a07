"""Inputs that are sent repeatedly to a worker that is killed repeatedly: each counts once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import EVENT_ID_HEADER, TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.kafka.test_worker_kills import PHASES, Phase
from tests.support.checker import Promise
from tests.support.kafka.harness import DEADLINE_S, Workbench
from tests.support.kafka.producing import ordered_producer

pytestmark = pytest.mark.kafka


class Repeated(Workbench):
    """The app of `tests.support.kafka.repeated`. `sent`: each input once. `produced`: the number of sends of each."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        super().__init__(servers, prefix, directory, groups=("main",))
        self.environment["KILL_APP"] = "tests.support.kafka.repeated:app"
        self.produced = 0
        self._random = random.Random(prefix)
        with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
            cluster.create([TopicSpec(f"{prefix}-dropped", self.partitions)])

    def promises(self) -> tuple[Promise, ...]:
        return tuple(replace(promise, ids=True) for promise in super().promises())

    def send(self, count: int, keys: int = 20) -> None:
        """Send new inputs, each up to three times, with old ones between them."""
        producer = ordered_producer(self.servers)
        for _ in range(count):
            number = len(self.sent)
            self.sent.append((f"key-{number * 7 % keys}", number))
            for place in [number] * self._random.randint(1, 3) + [self._random.randint(0, number)]:
                key, value = self.sent[place]
                producer.produce(
                    f"{self.prefix}-amounts",
                    msgspec.json.encode({"n": value}),
                    key,
                    headers=[(EVENT_ID_HEADER, b"amount-%d" % place)],
                )
                self.produced += 1
                producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0

    def start(self, point: str = "BEFORE_BEGIN") -> subprocess.Popen[bytes]:
        """Start a worker that kills itself at a point after the trigger."""
        self._trigger.unlink(missing_ok=True)
        return self._killed_at(point, 1, str(self._trigger))

    def kill(self, point: str) -> None:
        """Let a worker recover, and then kill itself under new and repeated input."""
        worker = self.start(point)
        self.settle()
        self._trigger.touch()
        deadline = time.monotonic() + DEADLINE_S
        while worker.poll() is None:
            assert time.monotonic() < deadline, f"{point} was not reached:\n{self.log.read_text()}"
            self.send(20)
        assert worker.returncode in {-signal.SIGKILL, -signal.SIGXFSZ}, self.log.read_text()

    def settle(self) -> None:
        """Wait until each input is an output or a dropped duplicate."""
        places = [
            TopicPartition(f"{self.prefix}-{name}", partition)
            for name in ("sums", "dropped")
            for partition in range(self.partitions)
        ]
        deadline = time.monotonic() + DEADLINE_S
        with closing(KafkaJournalReader(self._kafka)) as reader:
            while (found := sum(_count(reader, place) for place in places)) < self.produced:
                assert time.monotonic() < deadline, f"{found} of {self.produced}:\n{self.log.read_text()}"
        assert found == self.produced

    def finish(self) -> None:
        """Run one more worker with more inputs, and check that the results are exact."""
        self.send(20)  # without inputs left, it may not handle signals yet
        worker = self.start()
        self.settle()
        assert self.stop(worker) == 0, self.log.read_text()
        self.check()
        self.verify_at_rest()


def _count(reader: KafkaJournalReader, place: TopicPartition) -> int:
    bounds = reader.bounds(place)
    return sum(1 for _ in reader.read(place, bounds.start, bounds.stable_end))


@pytest.fixture
def repeated(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Repeated]:
    """The topics, the state directory and the processes of one test."""
    made = Repeated(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()


def test_what_is_sent_again_counts_once_although_the_worker_was_killed(repeated: Repeated) -> None:
    """A sender repeats its inputs if it gets no answer, and the ids must survive a kill and an empty disk."""
    repeated.send(100)
    repeated.kill("DURING_COMMIT")
    shutil.rmtree(repeated.state_dir)
    repeated.finish()


@pytest.mark.kills
def test_what_is_sent_again_counts_once_whatever_step_the_worker_was_killed_at(repeated: Repeated) -> None:
    """A kill at any step must leave the set of handled ids equal to the committed inputs."""
    repeated.send(100)
    for point in [point for point, phase in PHASES.items() if phase in {Phase.COMMIT, Phase.RETIRE}]:
        repeated.kill(point)
    repeated.finish()

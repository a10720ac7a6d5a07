"""What the worker tests share: topics, input, worker processes, and the comparison with a fold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import TopicSpec

PARTITIONS = 2
DEADLINE_S = 60.0


class Workbench:
    """One test's topics on the broker, its state directory, and the worker processes it starts."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        self.servers = servers
        self.prefix = prefix
        self.state_dir = directory / "state"
        self.log = directory / "worker.log"
        self.sent: list[tuple[str, int]] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._kafka = KafkaSettings(servers)
        cluster = KafkaCluster(self._kafka)
        cluster.create([TopicSpec(f"{prefix}-{name}", PARTITIONS) for name in ("amounts", "sums")])
        cluster.close()

    def send(self, count: int, keys: int = 20) -> None:
        """Produce `count` more inputs, spread over keys."""
        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,  # a retry must not overtake what came before it
            }
        )
        for _ in range(count):
            number = len(self.sent)
            key = f"key-{number * 7 % keys}"
            self.sent.append((key, number))
            producer.produce(f"{self.prefix}-amounts", msgspec.json.encode({"n": number}), key)
            producer.poll(0)
        assert producer.flush(DEADLINE_S) == 0

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`pipeline worker` as its own process."""
        return self._spawn(
            "-m", "pipeline", "worker", "tests.kafka.sums:app", "--kafka", self.servers,
            "--state-dir", str(self.state_dir), *arguments,
        )  # fmt: skip

    def worker_killed_at(self, step: str, nth: int) -> subprocess.Popen[bytes]:
        """A worker that kills itself at a step."""
        return self._spawn("-m", "tests.kafka.kill_at", step, str(nth), self.servers, str(self.state_dir))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`pipeline ...`, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def wait_for_outputs(self, worker: subprocess.Popen[bytes], at_least: int | None = None) -> None:
        """Wait until this many outputs are committed; default: as many as inputs were sent."""
        wanted = len(self.sent) if at_least is None else at_least
        with self._reader() as read:
            count = 0
            deadline = time.monotonic() + DEADLINE_S
            while count < wanted:
                count += len(read())
                assert worker.poll() is None, f"the worker ended:\n{self.log.read_text()}"
                assert time.monotonic() < deadline, f"{count} of {wanted}:\n{self.log.read_text()}"

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGTERM, and the exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(DEADLINE_S)

    def finish(self) -> None:
        """Run a worker until both groups have processed everything, stop it as SIGTERM does, and check."""
        worker = self.worker()
        self.wait_for_outputs(worker)
        deadline = time.monotonic() + DEADLINE_S
        # The counting group has no outputs: its table, read while the worker runs, says how far it is.
        while sum(int(str(n)) for n in self.table("counting.counts").values()) < len(self.sent):
            assert time.monotonic() < deadline, self.log.read_text()
        assert self.stop(worker) == 0, self.log.read_text()
        self.check()

    def outputs(self) -> dict[str, list[tuple[int, int]]]:
        """Outputs by key, in order, up to where they are committed now: (count, total)."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        places = [TopicPartition(f"{self.prefix}-sums", p) for p in range(PARTITIONS)]
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
        """The same, from a fold over what was sent."""
        folded: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for key, number in self.sent:
            count, total = folded[key][-1] if folded[key] else (0, 0)
            folded[key].append((count + 1, total + number))
        return dict(folded)

    def table(self, name: str) -> dict[str, object]:
        """A table by key, from `pipeline table show`."""
        done = self.command(
            "table",
            "show",
            name,
            "--app",
            "tests.kafka.sums:app",
            "--state-dir",
            str(self.state_dir),
            "--json",
        )
        assert done.returncode == 0, done.stderr
        rows = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
        return {row["key"]: row["value"] for row in rows}

    def check(self) -> None:
        """Outputs and both tables equal the fold."""
        expected = self.expected()
        assert self.outputs() == expected
        assert self.table("totals") == {
            key: {"count": values[-1][0], "total": values[-1][1]} for key, values in expected.items()
        }
        assert self.table("counting.counts") == {key: len(values) for key, values in expected.items()}

    def close(self) -> None:
        """End the processes that this test started."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

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
        return {**os.environ, "SUMS_PREFIX": self.prefix}

    @contextmanager
    def _reader(self) -> Iterator[_Read]:
        source = KafkaSources(self._kafka).open(f"{self.prefix}-reader")
        source.assign({TopicPartition(f"{self.prefix}-sums", p): 0 for p in range(PARTITIONS)})

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

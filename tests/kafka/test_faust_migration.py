"""An application that a real worker of Faust has run, continued by a worker of this engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from tests.conftest import KafkaUnderTest
from tests.support.faust.cases import rows_of_changelog
from tests.support.faust.harness import FAUST_STOP_S
from tests.support.faust.kafka import Reader
from tests.support.kafka.producing import ordered_producer
from tests.support.pages import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(500)]

PARTITIONS = 4
# On a busy machine, Faust pauses for seconds whenever a hundred changes of tables wait to be sent.
FAUST_S = 120.0
APP = "tests.support.faust.shop:app"


@dataclass
class Tables:
    """Rows by key."""

    totals: dict[str, int]
    seen: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    last: dict[str, dict[str, object]] = field(default_factory=dict)


class Shop:
    """The shop's topics, its processes and its log."""

    def __init__(self, name: str, servers: str, directory: Path, guarantee: str) -> None:
        self.name, self.servers, self._directory = name, servers, directory
        self.log = directory / "shop.log"
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PIPELINE_")},
            "SHOP": name,
            "SHOP_KAFKA": servers,
            "SHOP_DATA": str(directory / "faust"),
            "SHOP_GUARANTEE": guarantee,
            "PIPELINE_KAFKA": servers,
            "PYTHONPATH": str(ROOT),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._producer = ordered_producer(servers)
        self.sent: list[tuple[str, int]] = []
        admin = AdminClient({"bootstrap.servers": servers})
        created = admin.create_topics(
            [NewTopic(f"{name}-{topic}", PARTITIONS, 1) for topic in ("orders", "sums")]
        )
        for future in created.values():
            future.result(timeout=60)

    def send(self, count: int) -> None:
        for _ in range(count):
            number = len(self.sent)
            customer = f"c{number % 17}"
            self.sent.append((customer, number))
            value = msgspec.json.encode({"customer": customer, "cents": number})
            self._producer.produce(f"{self.name}-orders", value, customer.encode())
        assert self._producer.flush(60) == 0

    def faust(self) -> subprocess.Popen[bytes]:
        """A worker of Faust."""
        return self._spawn("faust", "-A", "tests.support.faust.shop", "worker", "--without-web")

    def worker(self) -> subprocess.Popen[bytes]:
        """A worker of this engine."""
        state = str(self._directory / "state")
        return self._spawn("pipeline", "worker", APP, "--state-dir", state)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def killed_migration(self, step: str) -> int:
        return self._spawn("tests.support.faust.kill_migrate_at", step, self.servers).wait(120)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(60)

    def stop_faust(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a worker of Faust that has nothing left to do.

        By itself it would not wait long for changelogs and offsets, and its shutdown sometimes hangs.
        """
        wait_until(self._has_settled, self.log.read_text, FAUST_S)
        process.terminate()
        try:
            process.wait(FAUST_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with closing(KafkaCluster(KafkaSettings(self.servers))) as cluster:
            wait_until(lambda: not cluster.member_ids(self.name), self.log.read_text, FAUST_S)

    def _has_settled(self) -> bool:
        """Whether all inputs are committed in Faust's group, and its tables are in its changelogs."""
        with closing(KafkaCluster(KafkaSettings(self.servers))) as cluster:
            done = cluster.committed(self.name)
        orders = [at for place, at in done.items() if place.topic == f"{self.name}-orders"]
        if sum(orders) < len(self.sent):
            return False
        logs = {f"{self.name}-{table}-changelog": PARTITIONS for table in ("totals", "seen", "last")}
        with closing(Reader(self.servers, logs)) as reader:
            totals, seen, last = map(reader.read().__getitem__, logs)
        wanted = self.tables()
        return (
            rows_of_changelog(totals, sets=False) == wanted.totals
            and rows_of_changelog(seen, sets=True) == {key: sorted(each) for key, each in wanted.seen.items()}
            and rows_of_changelog(last, sets=False) == wanted.last
        )

    def tables(self) -> Tables:
        """The rows of the three tables after all inputs."""
        found = Tables({key: sums[-1] for key, sums in self.expected().items()})
        for customer, cents in self.sent:
            found.seen[customer].add(cents)
            if cents % 10:
                found.last[customer] = {"customer": customer, "cents": cents}
            else:
                found.last.pop(customer, None)
        return found

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait(30)

    def outputs(self) -> dict[str, list[int]]:
        """The committed sums of each customer."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"{self.name}-test",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        consumer.assign(
            [ClientPartition(f"{self.name}-sums", n, OFFSET_BEGINNING) for n in range(PARTITIONS)]
        )
        found: dict[str, list[int]] = defaultdict(list)
        ended: set[int | None] = set()
        while len(ended) < PARTITIONS:
            for message in consumer.consume(500, 1.0):
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                elif error is not None:
                    assert error.retriable(), error
                else:
                    found[(message.key() or b"").decode()].append(int(message.value() or b""))
        consumer.close()
        return dict(found)

    def wait_for_outputs(self, count: int, within_s: float = 60.0) -> None:
        wait_until(lambda: sum(map(len, self.outputs().values())) >= count, self.log.read_text, within_s)

    def expected(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for customer, cents in self.sent:
            sums = found.setdefault(customer, [])
            sums.append((sums[-1] if sums else 0) + cents)
        return found

    def table(self, name: str) -> dict[str, object]:
        shown = self.command(
            "table", "show", name, "--app", APP, "--state-dir", str(self._directory / "state"), "--json"
        )
        assert shown.returncode == 0, shown.stderr
        rows = [msgspec.json.decode(line) for line in shown.stdout.splitlines()]
        return {row["key"]: row["value"] for row in rows}

    def _spawn(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process


@pytest.fixture
def guarantee() -> str:
    return "at_least_once"


@pytest.fixture
def shop(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, guarantee: str) -> Iterator[Shop]:
    found = Shop(unique_name, kafka.bootstrap_servers, tmp_path, guarantee)
    yield found
    found.close()


def _ran_on_faust(shop: Shop, count: int = 300) -> None:
    """A worker of Faust processes records, and is stopped."""
    shop.send(count)
    worker = shop.faust()
    shop.wait_for_outputs(count, FAUST_S)
    refused = shop.command("faust", "migrate", APP, "--yes")
    assert refused.returncode == 1
    assert "has 1 member" in refused.stderr
    shop.stop_faust(worker)


def _check(shop: Shop) -> None:
    wanted = shop.tables()
    assert shop.outputs() == shop.expected()
    assert shop.table("totals") == wanted.totals
    assert {key: _elements(value) for key, value in shop.table("seen").items()} == wanted.seen
    assert {key: _fields(value) for key, value in shop.table("last").items()} == wanted.last


def _elements(value: object) -> set[object]:
    assert isinstance(value, Sequence)
    return set(value)


def _fields(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return {name: item for name, item in value.items() if not name.startswith("__")}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_an_application_of_faust_continues_exactly_where_it_was(shop: Shop) -> None:
    """No record is lost or counted twice, and the tables are those of Faust."""
    _ran_on_faust(shop)
    shop.send(100)
    too_early = shop.command("worker", APP, "--state-dir", str(shop.log.parent / "state"))
    assert too_early.returncode == 1
    assert "has run as another program" in too_early.stderr
    assert "pipeline faust migrate" in too_early.stderr

    moved = shop.command("faust", "migrate", APP, "--yes")
    assert moved.returncode == 0, moved.stderr
    assert "17 rows of totals" in moved.stderr
    again = shop.command("faust", "migrate", APP, "--yes")
    assert again.returncode == 0, again.stderr
    assert "has been moved from Faust already" in again.stderr

    worker = shop.worker()
    shop.wait_for_outputs(400)
    shop.send(100)
    shop.wait_for_outputs(500)
    shop.stop(worker)
    _check(shop)


@pytest.mark.parametrize("step", ["BEFORE_GENESIS", "DURING_GENESIS", "AFTER_GENESIS"])
def test_a_migration_that_is_killed_is_run_again(shop: Shop, step: str) -> None:
    """It leaves nothing or everything."""
    _ran_on_faust(shop, 100)
    shop.send(50)
    assert shop.killed_migration(step) == -signal.SIGKILL, shop.log.read_text()
    moved = shop.command("faust", "migrate", APP, "--yes")
    assert moved.returncode == 0, moved.stderr
    assert ("already" in moved.stderr) == (step == "AFTER_GENESIS")
    worker = shop.worker()
    shop.wait_for_outputs(150)
    shop.stop(worker)
    _check(shop)

"""The example of an external effect, with a worker that is killed between its call and its commit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.effects.app import Order
from examples.effects.provider import Provider
from pipeline import App, Producer
from pipeline.config import KafkaSettings, Settings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest

pytestmark = pytest.mark.kafka

ORDERS = 60
KILLED_AT = 30
DEADLINE_S = 60.0


class Shop:
    """A payment provider in this process, and worker processes of the example that call it."""

    def __init__(self, servers: str, suffix: str, directory: Path) -> None:
        self._servers = servers
        self._suffix = suffix
        self._directory = directory
        self.all_charged = threading.Event()
        self.killed = 0
        self.worker: subprocess.Popen[bytes] | None = None
        self.provider = Provider(on_charge=self._charged)
        threading.Thread(target=self.provider.server.serve_forever, daemon=True).start()
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create([TopicSpec(f"{name}{suffix}", 2) for name in ("effect-orders", "effect-receipts")])
        cluster.close()

    def order(self, count: int) -> None:
        topic = App("shop").topic(f"effect-orders{self._suffix}", key=str, value=Order)
        with Producer(Settings(KafkaSettings(self._servers))) as producer:
            for n in range(count):
                producer.send(topic, str(n), Order(f"customer-{n}", n), id=str(n))

    def start(self) -> subprocess.Popen[bytes]:
        with (self._directory / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [
                    sys.executable, "-m", "pipeline", "worker", "examples.effects.app:app",
                    "--kafka", self._servers, "--state-dir", str(self._directory / "state"),
                ],
                env={**os.environ, "EFFECTS_PROVIDER": self.provider.url, "EFFECTS_SUFFIX": self._suffix},
                stdout=log,
                stderr=log,
            )  # fmt: skip
        return self.worker

    def log(self) -> str:
        return (self._directory / "worker.log").read_text()

    def close(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        self.provider.server.shutdown()
        self.provider.server.server_close()

    def _charged(self, count: int) -> None:
        """Whether the provider has made a charge but not answered yet."""
        if count == KILLED_AT and not self.killed and self.worker is not None:
            self.killed += 1
            self.worker.send_signal(signal.SIGKILL)
        if count == ORDERS:
            self.all_charged.set()


@pytest.fixture
def shop(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(kafka.bootstrap_servers, f"-{unique_name[-8:]}", tmp_path)
    yield made
    made.close()


def test_a_worker_killed_after_its_call_calls_again_and_nothing_is_charged_twice(shop: Shop) -> None:
    """The charge was made without an answer or a commit, so the next worker must repeat it with the same key."""
    shop.order(ORDERS)
    assert shop.start().wait(DEADLINE_S) == -signal.SIGKILL, shop.log()
    assert len(shop.provider.charges) == KILLED_AT
    worker = shop.start()
    assert shop.all_charged.wait(DEADLINE_S), shop.log()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(DEADLINE_S) == 0, shop.log()
    charges = Counter(charge["body"]["customer"] for charge in shop.provider.charges.values())
    assert charges == Counter(f"customer-{n}" for n in range(ORDERS))
    assert shop.provider.requests > ORDERS

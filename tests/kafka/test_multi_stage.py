"""Three stages and a join on several workers and the real broker. One worker is killed under load."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.orders_harness import OrdersBench
from tests.support.runtime.orders import Sent

pytestmark = pytest.mark.kafka


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[OrdersBench]:
    """The app with a unique suffix, without a worker."""
    found = OrdersBench(kafka.bootstrap_servers, f"-{unique_name[-8:]}", tmp_path, Sent())
    yield found
    found.close()


def test_a_worker_killed_under_load_leaves_every_stage_exact(bench: OrdersBench) -> None:
    """The tasks of three groups are on different workers, so a kill interrupts the chain at any stage."""
    first, second, third = (bench.start(name) for name in ("first", "second", "third"))
    bench.send(300)
    bench.wait_until_live()
    for _ in range(10):
        bench.send(100)
    second.kill()
    assert second.wait() == -signal.SIGKILL
    for _ in range(10):
        bench.send(100)
    again = bench.start("second")
    bench.send(300)
    bench.wait_until_runs_a_task(again)  # the others may finish all inputs before it has started
    bench.send(300)
    bench.wait_until_done()
    bench.stop(first, again, third)
    bench.check()

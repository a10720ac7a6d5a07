"""What goes wrong around a worker: each time it says what, where and what to do next, and nothing is lost.

Every test reads the text that an operator gets, mends the cause, and compares outputs and tables with a fold.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from tests.conftest import KafkaUnderTest
from tests.kafka.workbench import DEADLINE_S, Workbench

pytestmark = pytest.mark.kafka


class Bench(Workbench):
    """A workbench whose first worker is the app with trouble built in; `finish` runs the mended one."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        super().__init__(servers, prefix, directory)
        self.environment: dict[str, str] = {}

    def troubled_worker(
        self, trouble: str = "", at: int = -1, policy: str = "stop", *arguments: str
    ) -> subprocess.Popen[bytes]:
        """A worker that runs into `trouble` at the input number `at`."""
        self.environment |= {"TROUBLE": trouble, "TROUBLE_AT": str(at), "TROUBLE_POLICY": policy}
        return self._spawn(
            "-m", "pipeline", "worker", "tests.kafka.troubles:app", "--kafka", self.servers,
            "--state-dir", str(self.state_dir), *arguments,
        )  # fmt: skip

    def send_raw(self, key: bytes, value: bytes) -> None:
        """Produce one record of any bytes to partition 0."""
        producer = Producer({"bootstrap.servers": self.servers})
        producer.produce(f"{self.prefix}-amounts", value, key, partition=0)
        assert producer.flush(DEADLINE_S) == 0

    def events(self, name: str) -> list[dict[str, object]]:
        """The events of this name in the log of all workers so far."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                event = msgspec.json.decode(line)
                if event["event"] == name:
                    found.append(event)
        return found

    def wait_for_event(self, name: str, times: int = 1) -> dict[str, object]:
        """Wait until the log has an event this many times; the last one."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := self.events(name)) < times:
            assert time.monotonic() < deadline, f"{name} never came:\n{self.log.read_text()}"
        return found[-1]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.environment}


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Bench]:
    """Topics, state directory and processes of one test."""
    made = Bench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    yield made
    made.close()


# A handler that does not return


@pytest.mark.parametrize("trouble", ["hangs", "hangs in C"])
def test_a_handler_that_never_returns_is_named_and_sigterm_ends_the_worker(
    bench: Bench, trouble: str
) -> None:
    """Also inside a C library, where Python's own signal handlers would wait as long as the handler does."""
    bench.send(100)
    bench.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.4", "PIPELINE_STOP_TIMEOUT_S": "1.5"}
    worker = bench.troubled_worker(trouble, at=60)
    warning = bench.wait_for_event("handler_has_not_returned")
    assert (warning["handler"], warning["topic"]) == ("add", f"{bench.prefix}-amounts")
    place = f"{warning['topic']}[{warning['partition']}] offset {warning['offset']}"
    assert "troubles.py" in str(warning["stack"])
    assert bench.stop(worker) == 1
    left = bench.wait_for_event("worker_left")
    assert left["reason"] == (
        f"the worker was told to stop 1.5 s ago, and handler add has not returned from {place}"
    )
    assert "nothing is lost" in str(left["next"])
    assert "runbooks/handler-hangs.md" in str(left["next"])
    bench.finish()


def test_a_second_interrupt_ends_a_worker_whose_handler_hangs_at_once(bench: Bench) -> None:
    """Whoever sits in front of it need not wait for the time-out; a second SIGTERM is often sent by mistake."""
    bench.send(20)
    bench.environment |= {"PIPELINE_HANDLER_WARNING_S": "0.2"}
    worker = bench.troubled_worker("hangs in C", at=10)
    bench.wait_for_event("handler_has_not_returned")
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.5)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(DEADLINE_S) == 130
    bench.finish()

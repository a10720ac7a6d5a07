"""The workbench of sink tests on real servers: input, worker processes, and the comparison with SQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg

from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.kafka.producing import ordered_producer
from tests.support.sinks.ledger import DDL
from tests.support.sinks.server import PostgresUnderTest

__all__ = ["SinkBench"]

DEADLINE_S = 90.0
_CHECK = """
SELECT p.partition_no, p.next_offset, count(l.id), count(DISTINCT l.place), coalesce(max(l.place) + 1, 0)
FROM pipeline_positions p LEFT JOIN ledger l ON l.part = p.partition_no GROUP BY 1, 2
"""


class SinkBench:
    """The topic, database and worker processes of one test. `dsn`: for the workers; tests connect directly."""

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        postgres: PostgresUnderTest,
        *,
        partitions: int = 2,
        tasks: int = 2,
    ) -> None:
        self.servers = servers
        self.prefix = prefix
        self.partitions = partitions
        self.tasks = tasks  # of the workers that are started next
        self.postgres = postgres
        self.log = directory / "worker.log"
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.count = 0
        self._state_dir = directory / "state"
        self._trigger = directory / "trigger"
        self._children: list[subprocess.Popen[bytes]] = []
        self._direct = self.dsn = postgres.create_database()
        postgres.sql(self._direct, *DDL)
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create([TopicSpec(f"{prefix}-amounts", partitions, config={"retention.ms": "-1"})])
        cluster.close()

    def send(self, count: int) -> None:
        """Produce `count` more inputs, spread over accounts."""
        producer = ordered_producer(self.servers)
        for _ in range(count):
            account = f"account-{self.count * 7 % 20}"
            self.sent[account].append(self.count)
            producer.produce(f"{self.prefix}-amounts", msgspec.json.encode({"n": self.count}), account)
            producer.poll(0)
            self.count += 1
        assert producer.flush(DEADLINE_S) == 0

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Query the database directly, without a proxy."""
        return self.postgres.sql(self._direct, query)

    def done(self) -> int:
        """The number of written records, by the positions; 0 without positions, or if the database is unreachable."""
        try:
            found = self.sql("SELECT coalesce(sum(next_offset), 0)::bigint FROM pipeline_positions")
        except psycopg.Error:
            return 0
        return int(str(found[0][0]))

    def worker(self, *arguments: str, worker_id: str = "w") -> subprocess.Popen[bytes]:
        """Start `pipeline worker` as a process."""
        return self._spawn(
            {}, "-m", "pipeline", "worker", "tests.support.sinks.ledger:app", "--kafka", self.servers,
            "--state-dir", str(self._state_dir / worker_id), "--worker-id", worker_id,
            "--commit-interval-ms", "20", *arguments,
        )  # fmt: skip

    def ended_at(
        self,
        point: str,
        nth: int = 1,
        *,
        running: bool = True,
        how: str = "SIGKILL",
        worker_id: str = "killed",
    ) -> subprocess.Popen[bytes]:
        """Start a worker that kills or stops itself at a point. `running`: after it has caught up, under new input."""
        self._trigger.unlink(missing_ok=True)
        worker = self._spawn(
            {"KILL_APP": "tests.support.sinks.ledger:app", "KILL_WITH": how, "KILL_WORKER": worker_id},
            "-m", "tests.support.kafka.kill_at", point, str(nth), str(self._trigger) if running else "-",
            self.servers, str(self._state_dir / worker_id),
        )  # fmt: skip
        if running:
            self.catch_up(worker)
            self._trigger.touch()
        self.wait_until(
            lambda: _state(worker) in ({"Z", "X"} if how == "SIGKILL" else {"T"}), point, send=running
        )
        return worker

    def kill_at(self, point: str, nth: int = 1, *, running: bool = True) -> None:
        """Let a worker kill itself at a point, and check what it leaves."""
        worker = self.ended_at(point, nth, running=running)
        assert worker.wait(DEADLINE_S) == -signal.SIGKILL, self.log.read_text()
        self.check_consistent()

    def catch_up(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until all inputs are rows."""

        def caught_up() -> bool:
            assert worker.poll() is None, f"the worker ended:\n{self.log.read_text()}"
            return self.done() >= self.count

        self.wait_until(caught_up, "the rows")
        self.check_consistent()

    def wait_until(self, condition: Callable[[], bool], what: str, *, send: bool = False) -> None:
        """Wait for a condition with a deadline. `send`: with new input meanwhile."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.log.read_text()}"
            if send:
                self.send(20)
            time.sleep(0.03)

    def log_event_count(self, event: str) -> int:
        """The number of log entries with an event."""
        return self.log.read_text().count(event) if self.log.exists() else 0

    def wait_for_more(self, event: str, seen: int, *, send: bool = False) -> None:
        """Wait until an event was logged more often than `seen`."""
        self.wait_until(lambda: self.log_event_count(event) > seen, event, send=send)

    def check_consistent(self) -> None:
        """Check in one snapshot, at any time, that each offset below the positions has exactly one row."""
        if self.sql("SELECT to_regclass('pipeline_positions')") == [(None,)]:
            return
        for partition, position, rows, distinct, end in self.sql(_CHECK):
            assert rows == distinct == end == position, (
                f"partition {partition}: {position} {rows} {distinct} {end}"
            )

    def check(self) -> None:
        """Check that each input was written once, in order."""
        found: dict[str, list[int]] = defaultdict(list)
        for account, n in self.sql("SELECT account, n FROM ledger ORDER BY part, place"):
            found[str(account)].append(int(str(n)))
        assert found == self.sent
        assert self.sql("SELECT account, n FROM last ORDER BY account") == sorted(
            (account, amounts[-1]) for account, amounts in self.sent.items()
        )
        assert self.sql("SELECT account, count, total::bigint FROM counts ORDER BY account") == sorted(
            (account, len(amounts), sum(amounts)) for account, amounts in self.sent.items()
        )

    def finish(self) -> None:
        """Restart the killed worker until all is written, stop it with SIGTERM, and check."""
        self.send(300)
        worker = self.worker(worker_id="killed")
        self.catch_up(worker)
        assert self.stop(worker) == 0, self.log.read_text()
        self.check()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `pipeline ...` to its end."""
        names = {"LEDGER_PREFIX": self.prefix, "LEDGER_DSN": self._direct, "PIPELINE_KAFKA": self.servers}
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            env={**os.environ, **names},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        worker.send_signal(signal.SIGTERM)
        return worker.wait(DEADLINE_S)

    def close(self) -> None:
        """End the processes that this test started."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    def _spawn(self, environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
        names = {"LEDGER_PREFIX": self.prefix, "LEDGER_DSN": self.dsn, "LEDGER_TASKS": str(self.tasks)}
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **names, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._children.append(child)
        return child


def _state(process: subprocess.Popen[bytes]) -> str:
    """The kernel's state of the process: T if it is stopped, Z if it has ended."""
    try:
        return Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"

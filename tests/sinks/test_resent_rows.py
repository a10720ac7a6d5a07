"""A million rows from a producer that is killed and begins again too early, to PostgreSQL, past killed workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psycopg
import pytest

from tests.conftest import KafkaUnderTest
from tests.kafka.test_producing import Numbers, Rows
from tests.support.kafka.produce_rows import AT_A_TIME
from tests.support.sinks.server import PostgresUnderTest

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(1500)]

MILLION = 1_000_000
DEADLINE_S = 600.0


class Workers:
    """`pipeline worker`, one at a time, on one state directory."""

    def __init__(self, servers: str, prefix: str, dsn: str, directory: Path) -> None:
        self.log = directory / "worker.log"
        self.kills = 0
        self._prefix = prefix
        self._environment = {
            **os.environ,
            "UNIQUE_PREFIX": prefix,
            "UNIQUE_DSN": dsn,
            "PIPELINE_KAFKA": servers,
        }
        self._state_dir = directory / "state"
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                [
                    sys.executable, "-m", "pipeline", "worker", "tests.support.sinks.unique_rows:app",
                    "--state-dir", str(self._state_dir), "--worker-id", "w",
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def end(self, how: signal.Signals) -> int:
        """The exit code; a kill counts when it found one alive."""
        if self._worker is None:
            return 0
        if self._worker.poll() is None:
            self._worker.send_signal(how)
            self.kills += how is signal.SIGKILL
        return self._worker.wait(DEADLINE_S)

    def lag(self) -> int | None:
        """Records that no task has committed yet; None while that is not known of all."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "status", self._prefix, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        tasks = msgspec.json.decode(done.stdout)["tasks"] if done.stdout else []
        lags = [task["lag"] for task in tasks]
        return None if not lags or None in lags else sum(lags)


def test_each_row_of_a_file_is_once_in_the_topic_and_once_in_postgresql(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, postgres: PostgresUnderTest
) -> None:
    """Producer, worker and both of their successors end by SIGKILL, at random moments; SQL compares with the file."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    prefix, dsn = unique_name[-40:].strip("-"), postgres.create_database()
    postgres.sql(dsn, "CREATE TABLE numbers (account text, n bigint)")
    sent = Numbers(kafka.bootstrap_servers, f"{prefix}-sent")
    unique = Numbers(kafka.bootstrap_servers, f"{prefix}-unique")
    rows = Rows(sent, tmp_path, MILLION)
    workers = Workers(kafka.bootstrap_servers, prefix, dsn, tmp_path)
    workers.start()
    kills = at = 0
    try:
        while rows.delivered() + 80 * AT_A_TIME < MILLION:
            process = rows.start(at)
            goal = max(rows.delivered(), at) + chance.randrange(1, 30) * AT_A_TIME
            kills += rows.kill_when(process, goal, wait_s=chance.random() / 20)
            at = max(0, rows.delivered() - chance.randrange(1, 15_000))
            if chance.random() < 0.5:
                workers.end(signal.SIGKILL)
                workers.start()
        rows.finish(at)
        _wait_for_rows(postgres, dsn)
        deadline = time.monotonic() + DEADLINE_S
        while workers.lag() != 0:  # duplicates, too, have been read
            assert time.monotonic() < deadline, workers.log.read_text()[-5000:]
        assert workers.end(signal.SIGTERM) == 0, workers.log.read_text()[-5000:]
    except AssertionError as error:
        error.add_note(f"seed {seed}, {kills} kills of the producer, {workers.kills} of the worker")
        raise
    finally:
        workers.end(signal.SIGKILL)
    assert kills > 10
    assert workers.kills > 3
    assert len(sent.values()) > MILLION  # there were duplicates to drop
    assert unique.values() == list(range(MILLION))
    assert _differences(dsn, rows.file) == (MILLION, 0, 0)


def _wait_for_rows(postgres: PostgresUnderTest, dsn: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (found := postgres.sql(dsn, "SELECT count(*) FROM numbers")) < [(MILLION,)]:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def _differences(dsn: str, file: Path) -> tuple[int, int, int]:
    """Rows in the database; those of the file that it misses; those that it has beyond the file. Doubles count."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE file (account text, n bigint)")
        with connection.cursor() as cursor, cursor.copy("COPY file FROM STDIN (FORMAT csv)") as copy:
            copy.write(file.read_bytes())
        found = connection.execute(
            "SELECT (SELECT count(*) FROM numbers), "
            "(SELECT count(*) FROM (TABLE file EXCEPT ALL TABLE numbers) missing), "
            "(SELECT count(*) FROM (TABLE numbers EXCEPT ALL TABLE file) extra)"
        ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1]), int(found[2])

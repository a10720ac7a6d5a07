"""A PostgreSQL that goes away, and connections that are cut around COMMIT, under a real worker: rows stay exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.sinks.harness import DEADLINE_S, SinkBench
from tests.support.sinks.proxy import Cut, PostgresProxy
from tests.support.sinks.server import PostgresUnderTest

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_postgres() -> Iterator[PostgresUnderTest]:
    """A server that a test may stop."""
    server = PostgresUnderTest()
    yield server
    server.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def test_commits_whose_answer_is_lost_and_commits_that_never_arrive_leave_rows_exact(
    kafka: KafkaUnderTest, postgres: PostgresUnderTest, unique_name: str, directory: Path
) -> None:
    """The client cannot tell one from the other, so the positions have to."""
    bench = SinkBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), directory, postgres)
    proxy = PostgresProxy(postgres.socket)
    bench.dsn = bench.dsn.replace(f"host={postgres.directory} port=5432", f"host=127.0.0.1 port={proxy.port}")
    try:
        bench.send(200)
        worker = bench.worker()
        bench.catch_up(worker)
        for cut in (Cut.AFTER, Cut.BEFORE, Cut.AFTER, Cut.BEFORE):
            settled = bench.log_event_count("sink_commit_settled")
            proxy.cut_next_commit(cut)
            bench.wait_until(lambda: proxy.was_cut, f"a COMMIT ({cut.value})", send=True)
            bench.wait_for_more("sink_commit_settled", settled)
            bench.catch_up(worker)
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.check()
        outcomes = [line for line in bench.log.read_text().splitlines() if "sink_commit_settled" in line]
        assert sum("committed" in line for line in outcomes) >= 2, outcomes
        assert sum("aborted" in line for line in outcomes) >= 2, outcomes
        _check_commands(bench)
    finally:
        bench.close()
        proxy.close()


def _check_commands(bench: SinkBench) -> None:
    """What a group without a journal answers to commands that look into journals; and a reset."""
    status = bench.command("status", bench.prefix, "--tasks")
    assert status.returncode == 1  # no worker is alive
    assert status.stdout.count("rows/") == bench.partitions
    for words in (["journal", "show"], ["checkpoints", "list", "--store", f"file://{bench.log.parent}"]):
        done = bench.command(*words, bench.prefix, "--group", "rows")
        assert done.returncode == 1
        assert "has no journal" in done.stderr
        assert "pipeline_positions" in done.stderr
    shown = bench.command("table", "show", "ledger", "--app", "tests.support.sinks.ledger:app")
    assert "has no table ledger" in shown.stderr
    app = "tests.support.sinks.ledger:app"
    planned = bench.command("reset", app, "--group", "rows", "--from", "latest", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "No rows are deleted" in planned.stderr
    assert bench.command("reset", app, "--group", "rows", "--yes").returncode == 0
    assert bench.done() == 0


@pytest.mark.kills
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_is_stopped_and_started_under_a_worker_leaves_rows_exact(
    kafka: KafkaUnderTest, own_postgres: PostgresUnderTest, unique_name: str, directory: Path, mode: str
) -> None:
    """The outage is logged once; the worker waits, and continues without an operator."""
    bench = SinkBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), directory, own_postgres)
    try:
        bench.send(200)
        worker = bench.worker()
        bench.catch_up(worker)
        for _ in range(2):
            away, back = (
                bench.log_event_count("database_unreachable"),
                bench.log_event_count("database_reachable"),
            )
            own_postgres.stop(mode)
            bench.wait_for_more("database_unreachable", away, send=True)
            assert worker.poll() is None
            own_postgres.start()
            bench.wait_for_more("database_reachable", back)
            bench.catch_up(worker)
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.check()
    finally:
        bench.close()


@pytest.mark.kills
def test_sessions_that_the_server_ends_in_mid_stream_leave_rows_exact(
    kafka: KafkaUnderTest, postgres: PostgresUnderTest, unique_name: str, directory: Path
) -> None:
    """As an administrator does, or a failover."""
    bench = SinkBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), directory, postgres)
    try:
        bench.send(200)
        worker = bench.worker()
        bench.catch_up(worker)
        for _ in range(30):
            bench.send(50)
            bench.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        bench.catch_up(worker)
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.check()
    finally:
        bench.close()


def test_a_worker_that_starts_without_its_database_waits_for_it_and_one_that_is_let_in_nowhere_ends(
    kafka: KafkaUnderTest, own_postgres: PostgresUnderTest, unique_name: str, directory: Path
) -> None:
    """After a power cut the services start in any order; a wrong password is permanent, and never shown."""
    bench = SinkBench(kafka.bootstrap_servers, unique_name[-40:].strip("-"), directory, own_postgres)
    right = bench.dsn
    try:
        bench.send(50)
        own_postgres.stop()
        bench.dsn += " password=tr0ub4dor"
        worker = bench.worker()
        bench.wait_for_more("database_unreachable", 0)
        bench.wait_until(
            lambda: "has not started on w: the database" in bench.command("status", bench.prefix).stdout,
            "the problem in the status",
        )
        own_postgres.start()
        bench.catch_up(worker)
        assert bench.stop(worker) == 0, bench.log.read_text()
        bench.check()
        own_postgres.guard("postgres")
        for wrong, reason in (
            (bench.dsn, "password authentication failed"),
            (right, "no password supplied"),
            (right.replace("dbname=", "user=stranger dbname=no"), 'role "stranger" does not exist'),
        ):
            bench.log.unlink()
            bench.dsn = wrong
            assert bench.worker().wait(DEADLINE_S) == 1
            said = bench.log.read_text()
            assert "lets this worker not in: connection" in said
            assert reason in said
            assert "tr0ub4dor" not in said
            assert "Traceback" not in said
    finally:
        bench.close()

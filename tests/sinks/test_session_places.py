"""Which session a sink has, and which tables it means: poolers, and search paths that change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from pipeline import App, Event, Postgres, Sqlite
from pipeline.core.names import GroupId
from pipeline.core.sink_positions import PositionRow
from pipeline.databases import RealDatabases
from pipeline.errors import ConfigError
from pipeline.testing import DriverDatabases, TestDriver
from tests.sinks.test_apps import driver_of, row
from tests.sinks.test_session_contract import GROUP, HOLD, ROW
from tests.support.sinks.pooler import Pooler
from tests.support.sinks.server import PostgresUnderTest
from tests.support.sinks.totals import Totals

DDL = "CREATE TABLE totals (id text PRIMARY KEY, n bigint)"


@pytest.fixture
def databases() -> Iterator[DriverDatabases]:
    """Real ones; what a test leaves open is closed."""
    made = DriverDatabases(connect=True)
    yield made
    made.crash()


@pytest.fixture(params=["transactions", "sessions"])
def pooler(request: pytest.FixtureRequest, postgres: PostgresUnderTest) -> Iterator[Pooler]:
    made = Pooler(postgres.socket, transactions=request.param == "transactions")
    made.kind = request.param  # type: ignore[attr-defined]
    yield made
    made.close()


def test_a_pooler_of_transactions_is_refused_and_one_of_sessions_is_not(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, pooler: Pooler
) -> None:
    """Time-outs and temporary tables of a session would be another client's."""
    postgres.sql(dsn, DDL)
    driver, topic = driver_of(databases, Postgres(pooler.dsn(dsn, postgres.directory), "totals", row=row))
    for n in range(150):
        driver.send(topic, f"k{n}", n)
    if pooler.kind == "transactions":  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="gives each transaction another session") as caught:
            driver.run()
        assert "pool_mode = session" in (caught.value.hint or "")
        assert postgres.sql(dsn, "SELECT to_regclass('pipeline_positions')") == [(None,)]
    else:
        driver.run()
        driver.stop()
        assert postgres.sql(dsn, "SELECT count(*) FROM totals") == [(150,)]


@pytest.mark.parametrize("pooler", ["transactions"], indirect=True)
def test_a_pooler_that_was_not_noticed_at_the_start_is_found_by_the_fence(
    postgres: PostgresUnderTest, dsn: str, pooler: Pooler
) -> None:
    """Its mode may change under a running worker."""
    direct, sessions = RealDatabases(), RealDatabases()
    with_rows = direct.open(Postgres(dsn, write=print), "shop")
    with_rows.prepare()
    with_rows.begin()
    with_rows.put(GROUP, [ROW], keep=True)
    with_rows.commit()
    with_rows.close()
    place = pooler.dsn(dsn, postgres.directory)
    session = sessions.open(Postgres(place, write=print), "shop")
    other = sessions.open(Postgres(place, write=print), "shop")
    try:
        other.begin()
        other.lock(HOLD.task._replace(number=1), HOLD.tasks)  # in the one server session that both were given
        session.begin()
        with pytest.raises(ConfigError, match="gives each transaction another session"):
            session.move(HOLD, {"orders": 9})
    finally:
        session.close()
        other.close()


def test_a_database_in_sql_ascii_is_refused_at_the_start(
    databases: DriverDatabases, postgres: PostgresUnderTest
) -> None:
    """It stores bytes, not characters: the client returns the names of columns as bytes."""
    dsn = postgres.create_database("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    postgres.sql(dsn, DDL)
    driver, topic = driver_of(databases, Postgres(dsn, "totals", row=row))
    driver.send(topic, "a", 1)
    with pytest.raises(ConfigError, match="the encoding of the database is SQL_ASCII") as caught:
        driver.run()
    assert "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0" in (caught.value.hint or "")
    assert postgres.sql(dsn, "SELECT to_regclass('pipeline_positions')") == [(None,)]


def test_a_changed_search_path_changes_neither_positions_nor_tables(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """A write function sets it for its own tables; the rows after it would go to another schema."""
    other = "CREATE TABLE other.pipeline_positions (LIKE public.pipeline_positions INCLUDING ALL)"
    postgres.sql(dsn, DDL, "CREATE SCHEMA other", DDL.replace("totals", "other.totals"))

    def write(cursor: Any, events: Sequence[Event[str, int | None]]) -> None:
        cursor.execute("SET search_path = other")
        cursor.execute("CREATE TEMP TABLE IF NOT EXISTS pipeline_positions (app text)")

    app = App("shop")
    topic = app.topic("amounts", key=str, value=int | None)
    group = app.group("rows")
    group.sink(topic, Postgres(dsn, write=write))
    group.sink(topic, Postgres(dsn, "totals", row=row))
    driver = TestDriver(app, databases=databases)
    driver.send(topic, "a", 1)
    driver.run()
    postgres.sql(dsn, other, f"ALTER DATABASE {dsn.rpartition('=')[2]} SET search_path = other")
    for n in range(150):
        driver.send(topic, f"k{n}", n)
    driver.run()
    databases.crash()  # the next sessions are new ones, of the same process, and find the other schema
    driver.send(topic, "b", 2)
    driver.run()
    driver.stop()
    assert postgres.sql(dsn, "SELECT count(*) FROM public.totals") == [(152,)]
    assert postgres.sql(dsn, "SELECT next_offset FROM public.pipeline_positions") == [(152,)]
    assert postgres.sql(dsn, "SELECT count(*) FROM other.totals") == [(0,)]


def test_a_start_that_finds_another_schema_is_refused(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """It would begin at the first record, and append every row again."""
    postgres.sql(dsn, DDL, "CREATE SCHEMA other")
    driver, topic = driver_of(databases, Postgres(dsn, "public.totals", row=row))
    driver.send(topic, "a", 1)
    driver.run()
    driver.stop()
    postgres.sql(dsn, f"ALTER DATABASE {dsn.rpartition('=')[2]} SET search_path = other")
    again = DriverDatabases(connect=True)
    session = again.open(Postgres(dsn, write=print), "shop")
    session.prepare()
    cluster = str(postgres.sql(dsn, "SELECT cluster_id FROM public.pipeline_positions")[0][0])
    assert session.elsewhere(GroupId("shop", "rows"), cluster) == ["public.pipeline_positions"]
    assert session.elsewhere(GroupId("shop", "rows"), "another cluster") == []
    assert session.elsewhere(GroupId("shop", "others"), cluster) == []
    again.crash()
    driver.databases = DriverDatabases(connect=True)
    driver.restart()
    with pytest.raises(ConfigError, match=r"has its positions in public.pipeline_positions"):
        driver.run()
    driver.databases.crash()


def test_positions_in_another_schema_stop_a_start_and_a_reset() -> None:
    """The same in memory, where a group is new."""
    totals = Totals()
    totals.database.elsewhere = ["old.pipeline_positions"]
    totals.send(1)
    with pytest.raises(ConfigError, match=r"has its positions in old.pipeline_positions"):
        totals.driver.run()
    with pytest.raises(ConfigError, match=r"has its positions in old.pipeline_positions"):
        totals.driver.reset(group="rows")
    totals.database.elsewhere.clear()
    totals.driver.restart()
    totals.driver.run()
    totals.check()


def test_a_temporary_table_does_not_stand_for_sqlites_positions(tmp_path: Any) -> None:
    """SQLite looks for a name among temporary tables first."""
    session = RealDatabases().open(Sqlite(tmp_path / "shop.db", write=print), "shop")
    session.prepare()
    session.execute("CREATE TEMP TABLE pipeline_positions AS SELECT * FROM main.pipeline_positions")  # type: ignore[attr-defined]
    session.begin()
    session.put(GROUP, [ROW], keep=True)
    assert session.move(HOLD, {"orders": 9})
    session.commit()
    assert session.rows(GROUP) == [PositionRow(*ROW)._replace(position=9)]
    session.close()


def test_a_connection_through_a_pooler_invents_its_process(
    postgres: PostgresUnderTest, dsn: str, pooler: Pooler
) -> None:
    """By that a start knows whether to look closer; a direct connection costs no second one."""
    with psycopg.connect(pooler.dsn(dsn, postgres.directory), autocommit=True) as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,)
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (connection.info.backend_pid,)

"""What a database promises a sink: on the fake, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import Postgres, Sqlite
from pipeline.api.sinks import Mode, Sink
from pipeline.core.inputs import input_names
from pipeline.core.names import GroupId, TaskId
from pipeline.core.row_sets import Change, Gone
from pipeline.core.sink_positions import Hold, PositionRow
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    InvariantError,
    RejectedRowsError,
    RetriableError,
    SinkUnreachableError,
)
from pipeline.ports.databases import OwnWrite, RowsWrite, SinkSession, Target
from pipeline.testing import DriverDatabases
from tests.support.waiting import wait_until

GROUP = GroupId("shop", "rows")
TASK = TaskId("shop", "rows", 0)
ROW = PositionRow("orders", 0, 5, 1, "w1", "p1", "id", "cluster", 2)
TASKS = 2
HOLD = Hold(TASK, 1, "p1", {"orders": 5}, TASKS)
DDL = (
    'CREATE TABLE "t" (id integer PRIMARY KEY, "odd %name" text)',
    'CREATE TABLE log (id integer, "odd %name" text)',
    "CREATE TABLE strict (id integer PRIMARY KEY, amount integer NOT NULL CHECK (amount > 0))",
)
SELECT = {table: f"SELECT * FROM {table} ORDER BY id" for table in ("t", "log", "strict")}  # noqa: S608


@dataclass
class Bench:
    """A database behind the port. `fetch`: the committed rows of a table, in the order of `id`."""

    engine: str
    connect: Callable[[], SinkSession]
    fetch: Callable[[str], list[tuple[Any, ...]]]
    opened: list[SinkSession] = field(default_factory=list)
    databases: DriverDatabases | None = None  # what is in memory lives as long as it

    def session(self) -> SinkSession:
        session = self.connect()
        self.opened.append(session)
        session.prepare()
        return session

    def begun(self) -> SinkSession:
        """A session, and a database with one position."""
        session = self.session()
        session.begin()
        session.put(GROUP, [ROW], keep=True)
        session.commit()
        return session

    def write(self, mode: Mode, *changes: Change) -> None:
        session = self.session()
        session.begin()
        session.write([rows_write(session, mode, *changes)])
        session.commit()


def rows_write(session: SinkSession, mode: Mode, *changes: Change) -> RowsWrite:
    """As a sink makes it."""
    key = () if mode == "append" else ("id",)
    table = "log" if mode == "append" else "t"
    shape = session.shape(table)
    name = (shape.name if shape is not None else "") or table
    return RowsWrite(Target(name, mode, key, session.facts(name, key)), ("id", "odd %name"), changes)


@pytest.fixture(params=["memory", "sqlite", "sqlite-memory", "postgres"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The fake, then the real ones."""
    made = _memory() if request.param == "memory" else _real(request, tmp_path)
    yield made
    for session in made.opened:
        session.close()


def _memory() -> Bench:
    databases, sink = DriverDatabases(), Postgres[Any, Any]("host=memory", "t", row=lambda _event: {})
    database = databases.of(sink)

    def fetch(table: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.values()) for row in database.rows(table))

    return Bench("memory", lambda: databases.open(sink, "shop"), fetch)


def _real(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    sink: Sink[Any, Any]
    if request.param != "postgres":
        sink = Sqlite(tmp_path / "some" / "shop.db", "t", row=lambda _event: {})
    else:
        sink = Postgres(request.getfixturevalue("dsn"), "t", row=lambda _event: {})
    databases = DriverDatabases(connect=request.param != "sqlite-memory")
    reader = databases.open(sink, "reader")
    for statement in DDL:
        reader.execute(statement)  # type: ignore[attr-defined]  # both are SqlSessions

    def fetch(table: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = reader.query(SELECT[table])  # type: ignore[attr-defined]
        return rows

    return Bench(str(request.param), lambda: databases.open(sink, "shop"), fetch, [reader], databases)


def test_positions_are_kept_and_read_back(bench: Bench) -> None:
    """Rows that are there already stay, so that two first starts leave one set."""
    session = bench.begun()
    session.begin()
    session.put(GROUP, [ROW._replace(position=0), ROW._replace(partition=1)], keep=True)
    session.commit()
    assert sorted(session.rows(GROUP)) == [ROW, ROW._replace(partition=1)]
    assert session.rows(GroupId("shop", "others")) == []
    session.begin()
    assert session.lock(TASK, TASKS) == [ROW]
    session.put(GROUP, [ROW._replace(epoch=2)], keep=False)
    session.commit()
    assert ROW._replace(epoch=2) in session.rows(GROUP)


def test_preparing_twice_changes_nothing(bench: Bench) -> None:
    """Every start does it."""
    bench.begun()
    assert bench.session().rows(GROUP) == [ROW]


@pytest.mark.parametrize(
    ("hold", "moved"),
    [
        (HOLD, True),
        (Hold(TASK, 2, "p1", {"orders": 5}, TASKS), False),
        (Hold(TASK, 1, "p2", {"orders": 5}, TASKS), False),
        (Hold(TASK, 1, "p1", {"orders": 4}, TASKS), False),
        (Hold(TASK, 1, "p1", {"orders": 5, "more": 0}, TASKS), False),
        (Hold(TASK, 1, "p1", {"orders": 5, "orders/1": 0}, TASKS), False),
        (Hold(TaskId("shop", "rows", 1), 1, "p1", {"orders": 5}, TASKS), False),
    ],
)
def test_only_the_holder_moves_a_position_and_only_from_where_it_is(
    bench: Bench, hold: Hold, moved: bool
) -> None:
    """This is the fence: the epoch, the process, the position and each topic count."""
    session = bench.begun()
    session.begin()
    assert session.move(hold, dict.fromkeys(hold.positions, 9)) is moved
    session.rollback()
    assert session.rows(GROUP) == [ROW]


def test_rows_and_positions_are_committed_together_or_rolled_back_together(bench: Bench) -> None:
    """Otherwise a crash would lose rows or write them twice."""
    session = bench.begun()
    for end in (session.rollback, session.commit):
        session.begin()
        assert session.move(HOLD, {"orders": 7})
        session.write([rows_write(session, "upsert", (1, "a"))])
        end()
    assert session.rows(GROUP) == [ROW._replace(position=7)]
    assert bench.fetch("t") == [(1, "a")]


def several(session: SinkSession) -> list[PositionRow]:
    """Write the positions of four partitions of two topics, and return them sorted."""
    rows = [ROW._replace(topic=topic, partition=p) for topic in ("orders", "Bills") for p in range(4)]
    session.begin()
    session.put(GROUP, rows, keep=False)
    session.commit()
    return sorted(rows)


def test_a_task_locks_the_rows_of_all_its_partitions(bench: Bench) -> None:
    """A claim raises what it has locked: a row less would let an older owner write on."""
    session = bench.session()
    rows = several(session)
    for tasks in (1, 2, 3, 4):
        for number in range(tasks):
            session.begin()
            found = session.lock(TaskId("shop", "rows", number), tasks)
            session.rollback()
            assert found == [row for row in rows if row.partition % tasks == number]


def test_only_positions_that_move_are_compared_and_written(bench: Bench) -> None:
    """A batch of one partition must not rewrite the rows of a thousand others."""
    session = bench.session()
    rows = several(session)
    hold = Hold(TASK, 1, "p1", {"orders": 5, "orders/1": 5, "Bills": 5, "Bills/1": 5}, 2)
    session.begin()
    session.put(
        GROUP, [ROW._replace(epoch=2)], keep=False
    )  # the owner of fewer partitions has claimed this one
    session.commit()
    for after, moved in (
        ({"orders": 5, "orders/1": 7, "Bills": 6, "Bills/1": 5}, True),
        ({"orders": 6, "orders/1": 9, "Bills": 6, "Bills/1": 5}, False),
    ):
        session.begin()
        assert session.move(hold, after) is moved
        session.commit() if moved else session.rollback()
        hold = replace(hold, positions=after)
    expected = {(row.topic, row.partition): row for row in rows}
    expected["orders", 0] = ROW._replace(epoch=2)
    expected["orders", 2] = ROW._replace(partition=2, position=7)
    expected["Bills", 0] = ROW._replace(topic="Bills", position=6)
    assert sorted(session.rows(GROUP)) == sorted(expected.values())


def test_a_move_of_no_position_is_refused(bench: Bench) -> None:
    """Its rows would be written without a fence."""
    session = bench.begun()
    session.begin()
    with pytest.raises(InvariantError, match="is not fenced"):
        session.move(HOLD, HOLD.positions)
    session.rollback()


@pytest.mark.parametrize("how", ["claim", "commit"])
def test_a_transaction_that_waits_for_a_row_holds_no_later_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """So two owners with different numbers of tasks, which share rows, never deadlock."""
    if bench.engine != "postgres":
        pytest.skip("one transaction at a time")
    monkeypatch.setattr("pipeline.databases.postgres.session.LOCK_MS", 25_000)
    first, all_of_them, last = bench.session(), bench.session(), bench.session()
    several(first)
    watch = bench.opened[0]

    def waits() -> bool:
        sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(watch.query(sql) == [(1,)])  # type: ignore[attr-defined]

    def lock_all() -> None:
        all_of_them.begin()
        if how == "claim":
            assert len(all_of_them.lock(TASK, 1)) == 8
        else:
            names = [*input_names("orders", 4), *input_names("Bills", 4)]
            hold = Hold(TASK, 1, "p1", dict.fromkeys(reversed(names), 5), 1)
            assert all_of_them.move(hold, dict.fromkeys(names, 6))
        all_of_them.rollback()

    first.begin()
    first.move(Hold(TASK, 1, "p1", {"Bills": 5}, 4), {"Bills": 6})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock_all)
        wait_until(waits, lambda: "no transaction waits for the first row")
        last.begin()
        others = Hold(TaskId("shop", "rows", 1), 1, "p1", {"orders": 5, "Bills": 5}, 4)
        assert last.move(others, {"orders": 6, "Bills": 6})
        last.rollback()
        assert not waiting.done()
        first.rollback()
        waiting.result(30.0)


def test_a_session_that_is_closed_leaves_nothing_of_its_transaction(bench: Bench) -> None:
    """As when its process is killed."""
    session = bench.begun()
    session.begin()
    session.move(HOLD, {"orders": 7})
    session.write([rows_write(session, "upsert", (1, "a"))])
    session.close()
    assert bench.session().rows(GROUP) == [ROW]
    assert bench.fetch("t") == []


def test_an_upsert_replaces_and_deletes(bench: Bench) -> None:
    """One row for each key, also for many at once."""
    many = [(n, f"n{n}") for n in range(10, 200)]
    bench.write("upsert", (1, "a"), (2, "b"), *many)
    bench.write("upsert", (2, "B"), (3, None), *many, Gone((1,)))
    assert bench.fetch("t") == [(2, "B"), (3, None), *many]


def test_an_insert_leaves_what_is_there(bench: Bench) -> None:
    """The first row of a key stays."""
    bench.write("insert", (1, "a"))
    bench.write("insert", (1, "b"), (2, "c"))
    assert bench.fetch("t") == [(1, "a"), (2, "c")]


@pytest.mark.parametrize("count", [1, 100])
def test_appended_rows_are_all_there(bench: Bench, count: int) -> None:
    """Few go as statements, many as a copy."""
    rows = [(n, "back\\slash\ttab\n" if n % 2 else None) for n in range(count)]
    bench.write("append", *rows)
    assert bench.fetch("log") == rows


@pytest.mark.parametrize("count", [1, 100])
def test_a_row_that_is_refused_is_the_records_error(bench: Bench, count: int) -> None:
    """So that its record is looked for, and nothing else is blamed."""
    if bench.engine == "memory":
        pytest.skip("it has no constraints of its own")
    session = bench.begun()
    # SQLite takes any type.
    for amount in (-1, None, "many" if bench.engine == "postgres" else -2, object()):
        session.begin()
        target = Target("strict", "append", ())
        rows = [(n, 1) for n in range(count - 1)] + [(count, amount)]
        good = rows_write(session, "upsert", (1, "a"))
        with pytest.raises(RejectedRowsError) as caught:
            session.write([good, RowsWrite(target, ("id", "amount"), rows)])
        assert caught.value.write == 1
        session.rollback()
    assert session.rows(GROUP) == [ROW]
    assert bench.fetch("t") == bench.fetch("strict") == []


def test_what_is_missing_in_the_database_is_no_records_error(bench: Bench) -> None:
    """No record is guilty of a column that is not there."""
    if "memory" in bench.engine:
        pytest.skip("tables come into being there")
    session = bench.begun()
    for table, column in (("nowhere", "id"), ("t", "nothing")):
        session.begin()
        with pytest.raises(ConfigError):
            session.write([RowsWrite(Target(table, "append", ()), (column,), [(1,)])])
        session.rollback()


def test_the_users_own_statements_are_in_the_transaction(bench: Bench) -> None:
    """And what they raise belongs to their records."""
    if bench.engine == "memory":
        pytest.skip("it has no SQL")

    def function(cursor: Any, events: Any) -> None:
        for event in events:
            cursor.execute("INSERT INTO t (id) VALUES (1)" if event else "INSERT INTO nowhere VALUES (1)")

    session = bench.begun()
    session.begin()
    session.write([OwnWrite(function, [1])])
    session.rollback()
    assert bench.fetch("t") == []
    session.begin()
    session.write([OwnWrite(function, [1])])
    session.commit()
    assert [row[0] for row in bench.fetch("t")] == [1]
    for error, events in ((RejectedRowsError, [1]), (ConfigError, [0])):
        session.begin()
        with pytest.raises(error):
            session.write([OwnWrite(function, events)])
        session.rollback()


@pytest.mark.parametrize("how", ["commit", "rollback", "COMMIT"])
def test_the_users_own_statements_cannot_end_the_transaction(bench: Bench, how: str) -> None:
    """Half of a batch would be committed, and written again."""
    if bench.engine == "memory":
        pytest.skip("it has no SQL")

    def function(cursor: Any, _events: Any) -> None:
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        cursor.execute(how) if how == "COMMIT" else getattr(cursor.connection, how)()

    session = bench.begun()
    session.begin()
    with pytest.raises(FatalTaskError):
        session.write([OwnWrite(function, [1])])
    session.rollback()
    assert bench.fetch("t") == []


def test_a_take_over_waits_for_an_open_transaction_and_ends_one_that_stays_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a transaction must not hold up its successor."""
    monkeypatch.setattr("pipeline.databases.postgres.session.LOCK_MS", 200)
    if bench.engine.startswith("sqlite"):
        pytest.skip("its lock is the file's, and nobody can end another's")
    zombie, successor = bench.begun(), bench.session()
    zombie.begin()
    assert zombie.move(HOLD, {"orders": 7})
    for _ in range(100):  # the server ends the session when that is scheduled
        try:
            successor.begin()
            assert successor.lock(TASK, TASKS) == [ROW]
            break
        except RetriableError:
            successor.rollback()
    else:
        pytest.fail("the rows stay locked")
    successor.put(GROUP, [ROW._replace(epoch=2, process="p2")], keep=False)
    successor.commit()
    with pytest.raises(SinkUnreachableError):
        zombie.write([rows_write(successor, "upsert", (1, "a"))])
    late = bench.session()
    late.begin()
    assert not late.move(HOLD, {"orders": 7})


def test_the_shape_of_a_table_is_known(bench: Bench) -> None:
    """What does not fit is said at the start, and not by the first record."""
    if bench.engine == "memory":
        pytest.skip("any shape fits")
    session = bench.session()
    shape = session.shape("strict")
    assert shape is not None
    assert shape.columns == ("id", "amount")
    assert shape.primary == ("id",)
    assert list(shape.uniques or ()) == [frozenset({"id"})]
    if bench.engine != "sqlite-memory":  # where it would come into being
        assert session.shape("nowhere") is None

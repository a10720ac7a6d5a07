"""Upserts and deletions give the same wherever batches end, whatever the database takes for equal keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import Delete, Postgres, Sqlite
from pipeline.api.sinks import Mode, Sink
from pipeline.databases import RealDatabases
from pipeline.errors import RejectedRowsError
from pipeline.ports.databases import SinkSession
from pipeline.runtime.sinks.rows import Made, RowMaker
from pipeline.testing import DriverDatabases
from tests.support.sinks.server import PostgresUnderTest

U = "c0ffee00-0000-4000-8000-000000000001"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CET = timezone(timedelta(hours=1))


class Case(NamedTuple):
    """A key's column, values that name few rows of it, and what else the table has."""

    column: str
    keys: Sequence[Any]
    more: str = ""
    after: Sequence[str] = ()


POSTGRES = {
    "bigint": Case("bigint", [5, "5", Decimal(5), 6, " 6", 2**70, "x", None]),
    "text": Case("text", ["a", "b", 1, "1", True, "true", 1.0, Decimal("1.0"), "nul\0", b"a"]),
    "plain text": Case("text", ["a", "b", "c"]),
    "citext": Case("ci", ["a", "A", "b", "B"]),
    "index": Case("text", ["a", "A", "b"], after=["CREATE UNIQUE INDEX ON t (id caseless_text)"]),
    "numeric": Case("numeric(4,1)", [1, "1.0", Decimal("1.04"), Decimal("NaN"), "nan", 99999, 1.0]),
    "any numeric": Case("numeric", [1, Decimal("1.0"), "1.00", Decimal("NaN"), "NaN", 2, 3]),
    "float8": Case("float8", [0.0, -0.0, float("nan"), "NaN", 0, 1, 1.0]),
    "uuid": Case("uuid", [UUID(U), U, U.upper(), UUID(int=7), 7, "{" + U + "}"]),
    "char": Case("char(3)", ["a", "a ", "ab", "abcd", "ab "]),
    "varchar": Case("varchar(3)", ["abc", "abc  ", "abcd", "a", "a "]),
    "boolean": Case("boolean", [True, False, "t", "yes", 1]),
    "timestamptz": Case(
        "timestamptz",
        [NOON, NOON.astimezone(CET), NOON.replace(tzinfo=None), "2026-01-31 12:00Z", NOON.date()],
    ),
    "timestamp": Case("timestamp(0)", [NOON, NOON.replace(tzinfo=None), NOON.replace(microsecond=400_000)]),
    "date": Case("date", [date(2026, 1, 31), NOON, "2026-01-31", NOON.astimezone(CET)]),
    "domain": Case("word", ["a", "A", "b"]),
    "check": Case("text", ["a", "b"], ", CHECK (v <> 3)"),
    "unique": Case("text", ["a", "b", "c"], ", UNIQUE (v)"),
    "deferrable": Case("text", ["a", "b", "c"], ", UNIQUE (v) DEFERRABLE INITIALLY IMMEDIATE"),
    "trigger": Case(
        "text",
        ["a", "A", "b", "B"],
        after=["CREATE TRIGGER low BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION low()"],
    ),
    "counter": Case(
        "text",
        ["a", "b"],
        after=["CREATE TRIGGER up BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_up()"],
    ),
    "generated": Case("text", ["a", "b"], ", g bigint GENERATED ALWAYS AS (1 / (v - 3)) STORED"),
    "expression": Case("text", ["a", "b"], after=["CREATE INDEX ON t ((1 / (v - 3)))"]),
    "reference": Case("bigint", [1, 2, 3], ", FOREIGN KEY (v) REFERENCES t (id)"),
}
COMPARED = {"lt": "<", "le": "<=", "eq": "=", "ge": ">=", "gt": ">"}


def caseless(kind: str, prefix: str, default: str) -> list[str]:
    """Operators and a btree operator class by which upper and lower case are equal, as in citext."""
    statements = [
        f"CREATE FUNCTION {kind}_{name}_any({kind}, {kind}) RETURNS boolean LANGUAGE sql IMMUTABLE AS "
        f"'SELECT lower($1::text) {sign} lower($2::text)'"
        for name, sign in COMPARED.items()
    ]
    statements += [
        f"CREATE OPERATOR {prefix}{sign} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = {kind}_{name}_any)"
        for name, sign in COMPARED.items()
    ]
    operators = ", ".join(
        f"OPERATOR {at} {prefix}{sign}" for at, sign in enumerate(COMPARED.values(), start=1)
    )
    return [
        *statements,
        f"""CREATE FUNCTION {kind}_cmp_any({kind}, {kind}) RETURNS integer LANGUAGE sql IMMUTABLE
        AS 'SELECT bttextcmp(lower($1::text), lower($2::text))'""",
        f"""CREATE OPERATOR CLASS caseless_{kind} {default} FOR TYPE {kind} USING btree
        AS {operators}, FUNCTION 1 {kind}_cmp_any({kind}, {kind})""",
    ]


SETUP = (
    # The server of the tests has neither the extension citext nor ICU's collations.
    "CREATE TYPE ci",
    "CREATE FUNCTION ci_in(cstring) RETURNS ci LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
    "CREATE FUNCTION ci_out(ci) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
    "CREATE TYPE ci (INPUT = ci_in, OUTPUT = ci_out, LIKE = text, CATEGORY = 'S')",
    "CREATE CAST (ci AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS ci) WITHOUT FUNCTION AS ASSIGNMENT",
    *caseless("ci", "", "DEFAULT"),
    *caseless("text", "#", ""),
    "CREATE FUNCTION low() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := lower(NEW.id); RETURN NEW; END'",
    """CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN NEW.kept := OLD.kept || '+'; RETURN NEW; END$$""",
    "CREATE DOMAIN word AS text CHECK (VALUE <> 'A')",
)
SQLITE = {
    "INTEGER": Case("INTEGER", [5, "5", 5.0, 6, " 6", 2**70, b"5"]),
    "TEXT": Case("TEXT", ["a", "5", 5, 5.0, True, b"a"]),
    "NOCASE": Case("TEXT COLLATE NOCASE", ["a", "A", "b", "B"]),
    "RTRIM": Case("TEXT COLLATE RTRIM", ["a", "a ", "b", "b  "]),
    "no type": Case("", [5, "5", 5.0, b"5"]),
    "unique": Case("TEXT", ["a", "b", "c"], ", UNIQUE (v)"),
    "check": Case("TEXT", ["a", "b"], ", CHECK (v <> 3)"),
}
MEMORY = {"any": Case("", ["a", "b", 5, 5.0, True])}
VALUES = [1, 2, 3, 4, "4", None, "x", 2**70]


@dataclass
class Table:
    """A table `t` of a case in some database."""

    sink: Sink[Any, Any]
    session: SinkSession
    databases: DriverDatabases

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.session.query(sql)  # type: ignore[attr-defined]  # a SqlSession
        return found

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.session.execute(statement)  # type: ignore[attr-defined]

    def written(self, made: Sequence[Made], cuts: Sequence[int]) -> tuple[list[str], list[int]]:
        """The rows, and the places of the records that were refused, when batches end at `cuts`."""
        if self.sink.database == "postgresql://memory/":
            self.databases.memory.clear()
            self.session = self.databases.open(self.sink, "shop")
        else:
            self.do("DELETE FROM t")
        maker = RowMaker(self.sink, self.session)
        maker._take_columns({"id": 1, "v": 1})
        refused: list[int] = []
        bounds = sorted({0, len(made), *(cut for cut in cuts if cut < len(made))})
        for start, end in pairwise(bounds):
            self._write(maker, made, range(start, end), refused)
        if self.sink.database == "postgresql://memory/":
            return [repr(row) for row in self.databases.of(self.sink).rows("t")], refused
        return sorted(map(repr, self.ask("SELECT * FROM t"))), refused

    def _write(self, maker: RowMaker, made: Sequence[Made], places: range, refused: list[int]) -> None:
        """A batch that is refused is halved, as a task does it."""
        try:
            self.session.begin()
            self.session.write(maker.writes([made[at] for at in places]))
            self.session.commit()
        except RejectedRowsError:
            self.session.rollback()
            if len(places) == 1:
                refused.append(places[0])
                return
            middle = len(places) // 2
            self._write(maker, made, places[:middle], refused)
            self._write(maker, made, places[middle:], refused)


@pytest.fixture(scope="module", params=[*POSTGRES])
def in_postgres(request: pytest.FixtureRequest) -> Iterator[tuple[Table, Case]]:
    """Two rows are many enough for a copy."""
    postgres: PostgresUnderTest = request.getfixturevalue("postgres")
    sink: Postgres[Any, Any] = Postgres(_shared(postgres), "t", key="id", row=lambda _event: None)
    case = POSTGRES[request.param]
    table = Table(sink, RealDatabases().open(sink, "shop"), DriverDatabases())
    unique = "" if request.param == "index" else "PRIMARY KEY" if None not in case.keys else "UNIQUE"
    table.do("DROP TABLE IF EXISTS t")
    table.do(
        f"CREATE TABLE t (id {case.column} {unique}, v bigint NOT NULL, kept text DEFAULT 'new'{case.more})"
    )
    table.do(*case.after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.databases.postgres.session.STAGE_FROM_ROWS", 2)
        yield table, case
    table.session.close()


_DATABASES: dict[str, str] = {}


def _shared(postgres: PostgresUnderTest) -> str:
    """One database with the collations and functions of all cases."""
    place = postgres.dsn()
    if place not in _DATABASES:
        _DATABASES[place] = postgres.create_database()
        postgres.sql(_DATABASES[place], *SETUP)
    return _DATABASES[place]


@pytest.fixture(scope="module", params=[*SQLITE])
def in_sqlite(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Table, Case]]:
    path: Path = tmp_path_factory.mktemp("sqlite") / "shop.db"
    sink: Sqlite[Any, Any] = Sqlite(path, "t", key="id", row=lambda _event: None)
    case = SQLITE[request.param]
    table = Table(sink, RealDatabases().open(sink, "shop"), DriverDatabases())
    table.do(
        "PRAGMA synchronous = OFF",
        f"CREATE TABLE t (id {case.column} UNIQUE, v NOT NULL, kept DEFAULT 'new'{case.more})",
    )
    yield table, case
    table.session.close()


CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 7)), min_size=2, max_size=9)
CUTS = st.lists(st.integers(1, 8), max_size=2)
QUICKLY = settings(max_examples=10, suppress_health_check=[*HealthCheck])


def check(table: Table, case: Case, changes: Sequence[tuple[bool, int, int]], cuts: Sequence[int]) -> None:
    """One after the other, all at once, and cut somewhere: the same rows, the same records refused."""
    made: list[Made] = []
    for gone, key, value in changes:
        row = (case.keys[key % len(case.keys)], VALUES[value])
        made.append(Delete({"id": row[0]}) if gone else row)
    alone = table.written(made, range(1, len(made)))
    assert table.written(made, []) == alone
    assert table.written(made, cuts) == alone


# A row and the deletion of its key under another spelling; a deletion, then a row; a refused row, then another one.
@example([(False, 0, 0), (True, 1, 0)], [])
@example([(False, 0, 0), (True, 0, 0), (False, 0, 1)], [1])
@example([(False, 0, 2), (False, 1, 1), (False, 0, 1)], [1])
@example([(False, 1, 2), (False, 0, 0), (False, 1, 0), (True, 0, 0)], [2])
@given(changes=CHANGES, cuts=CUTS)
@QUICKLY
def test_postgresql_gives_the_same_wherever_batches_end(
    in_postgres: tuple[Table, Case], changes: list[tuple[bool, int, int]], cuts: list[int]
) -> None:
    """A batch ends with the clock: the same records must not give other rows on another day."""
    check(*in_postgres, changes, cuts)


@example([(False, 0, 0), (True, 1, 0)], [])
@example([(False, 0, 0), (True, 0, 0), (False, 0, 1)], [1])
@given(changes=CHANGES, cuts=CUTS)
@QUICKLY
def test_sqlite_gives_the_same_wherever_batches_end(
    in_sqlite: tuple[Table, Case], changes: list[tuple[bool, int, int]], cuts: list[int]
) -> None:
    """Affinity and collations decide which keys are equal."""
    check(*in_sqlite, changes, cuts)


@given(changes=CHANGES, cuts=CUTS)
@QUICKLY
def test_memory_gives_the_same_wherever_batches_end(
    changes: list[tuple[bool, int, int]], cuts: list[int]
) -> None:
    """What a test of an app sees is what the app would do."""
    databases = DriverDatabases()
    sink: Postgres[Any, Any] = Postgres("host=memory", "t", key="id", row=lambda _event: None)
    check(Table(sink, databases.open(sink, "shop"), databases), MEMORY["any"], changes, cuts)


@pytest.mark.parametrize("mode", ["append", "insert", "upsert"])
def test_a_value_is_the_same_in_a_small_and_in_a_large_batch(
    postgres: PostgresUnderTest, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows are parameters and many are a copy, which read a value of another type in two ways."""
    dsn = _shared(postgres)
    values = [True, 1.0, NOON, Decimal("1.50"), {"a": 1}, "x", None, [1.0], b"\x00"]
    columns = {"t": "text", "n": "numeric", "d": "timestamp", "o": "boolean", "j": "json", "r": "real"}
    found = {}
    for many in (1000, 1):
        monkeypatch.setattr("pipeline.databases.postgres.session.COPY_FROM_ROWS", many)
        monkeypatch.setattr("pipeline.databases.postgres.session.STAGE_FROM_ROWS", many)
        postgres.sql(
            dsn,
            "DROP TABLE IF EXISTS values",
            f"CREATE TABLE values (id int PRIMARY KEY, {', '.join(map(' '.join, columns.items()))})",
            "ALTER DATABASE " + dsn.rpartition("=")[2] + " SET TimeZone = 'Asia/Tokyo'",
        )
        sink: Postgres[Any, Any] = Postgres(dsn, "values", mode=mode, key="id", row=lambda _event: None)
        session = RealDatabases().open(sink, "shop")
        refused: list[tuple[str, object]] = []
        for at, (name, value) in enumerate((name, value) for name in columns for value in values):
            maker = RowMaker(sink, session)
            maker._take_columns({"id": 1, name: 1})
            try:
                session.begin()
                session.write(maker.writes([(at, value)]))
                session.commit()
            except RejectedRowsError:
                session.rollback()
                refused.append((name, value))
        session.close()
        found[many] = (refused, postgres.sql(dsn, "SELECT to_jsonb(v) FROM values v ORDER BY id"))
    assert found[1] == found[1000]

"""Rows per second of a sink's transactions: what a batch comes to, the statements, and the commit.

No Kafka and no worker: each case gives a ready batch of rows and deletions to `RowMaker.writes` and a session, on a
PostgreSQL server of its own (without fsync) and on a SQLite file. `at once`: the rows of one transaction.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from pipeline import Delete, Postgres, Sink, Sqlite
from pipeline.api.sinks import Mode
from pipeline.databases import RealDatabases
from pipeline.ports.databases import SinkSession
from pipeline.runtime.sinks.rows import Made, RowMaker
from tests.support.sinks.server import PostgresUnderTest

ROWS = 5_000
FEW = 20
DDL = (
    "CREATE TABLE plain (id text PRIMARY KEY, customer text NOT NULL, cents bigint NOT NULL)",
    "CREATE TABLE checked (id text PRIMARY KEY, customer text NOT NULL, cents bigint NOT NULL CHECK (cents >= 0))",
    "CREATE TABLE numbered (id bigint PRIMARY KEY, customer text NOT NULL, cents bigint NOT NULL)",
    "CREATE TABLE log (id text, customer text NOT NULL, cents bigint NOT NULL)",
)


class Case(NamedTuple):
    """`change` gives the n-th row of a turn: a mapping, or a deletion."""

    name: str
    table: str
    mode: Mode
    at_once: int
    change: Callable[[int, int], Made]


def _row(key: object, number: int) -> tuple[Any, ...]:
    return (key, f"customer {number}", number)


def _new(turn: int, n: int) -> Made:
    return _row(f"key-{turn}-{n}", n)


CASES = (
    Case("append", "log", "append", ROWS, _new),
    Case("upsert, new keys", "plain", "upsert", ROWS, _new),
    Case("upsert, known keys", "plain", "upsert", ROWS, lambda _turn, n: _row(f"key-{n}", n)),
    Case("upsert, known numbers", "numbered", "upsert", ROWS, lambda _turn, n: _row(n, n)),
    Case("upsert, 1,000 keys", "plain", "upsert", ROWS, lambda _turn, n: _row(f"key-{n % 1000}", n)),
    Case("upsert, 20 keys", "plain", "upsert", ROWS, lambda _turn, n: _row(f"key-{n % 20}", n)),
    Case("upsert, 20 keys, CHECK", "checked", "upsert", ROWS, lambda _turn, n: _row(f"key-{n % 20}", n)),
    Case(
        "upsert, one of ten a deletion",
        "plain",
        "upsert",
        ROWS,
        lambda _turn, n: Delete({"id": f"key-{n}"}) if n % 10 == 0 else _row(f"key-{n}", n),
    ),
    Case(
        "upsert, keys of two types",
        "numbered",
        "upsert",
        ROWS,
        lambda _turn, n: _row(str(n) if n % 2 else n, n),
    ),
    Case("upsert, 20 rows at once", "plain", "upsert", FEW, lambda _turn, n: _row(f"key-{n}", n)),
)


def _measured(sink: Sink[Any, Any], case: Case, turns: int) -> float:
    session = RealDatabases().open(sink, "bench")
    try:
        maker = RowMaker(sink, session)
        # The first row says which columns there are.
        maker._take_columns({"id": "", "customer": "", "cents": 0})  # noqa: SLF001
        taken = []
        for turn in range(turns + 1):
            made = [case.change(turn, n) for n in range(case.at_once)]
            taken.append(_once(session, maker, made))
        return case.at_once / statistics.median(taken[1:])
    finally:
        session.close()


def _once(session: SinkSession, maker: RowMaker, made: Sequence[Made]) -> float:
    began_s = time.perf_counter()
    session.begin()
    session.write(maker.writes(made))
    session.commit()
    return time.perf_counter() - began_s


def run(rounds: int) -> int:
    """Print rows per second of each case and database. Always 0: it bounds nothing."""
    shown = Table("case", "at once", "PostgreSQL, rows/s", "SQLite, rows/s")
    server = PostgresUnderTest()
    try:
        with tempfile.TemporaryDirectory() as directory:
            dsn, file = server.create_database(), Path(directory) / "bench.db"
            server.sql(dsn, *DDL)
            with closing(RealDatabases().open(Sqlite(file, write=print), "bench")) as session:
                for statement in DDL:
                    session.execute(statement)  # type: ignore[attr-defined]  # a SqlSession
            for case in CASES:
                options: dict[str, Any] = {"mode": case.mode, "row": lambda _event: None}
                turns = rounds * 3 if case.at_once == ROWS else rounds * 30
                found = [
                    _measured(sink, case, turns)
                    for sink in (Postgres(dsn, case.table, **options), Sqlite(file, case.table, **options))
                ]
                shown.add_row(case.name, f"{case.at_once:,}", *[f"{rate:,.0f}" for rate in found])
    finally:
        server.close()
    Console(width=100).print(shown)
    return 0

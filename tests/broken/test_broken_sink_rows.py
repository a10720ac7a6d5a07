"""Broken on purpose: what sinks write, in which transaction, session and schema."""

from __future__ import annotations

import pytest

import pipeline.core.row_sets
import pipeline.databases.postgres.own_writes
import pipeline.databases.postgres.pooling
import pipeline.databases.postgres.session
import pipeline.databases.sqlite
import pipeline.runtime.sinks.backend
import pipeline.testing.databases
from tests.support.breaking import Broken, Copy, name_of

BATCH_ENDS = "tests/sinks/test_batch_ends.py"
DRIVER = "tests/testing/test_driver_sinks.py"
OWN_WRITES = "tests/sinks/test_own_writes.py"
PLACES = "tests/sinks/test_session_places.py"

ROWS = [
    Broken(
        "a write function that has committed is said to have written nothing",
        pipeline.databases.postgres.own_writes.run_own_write,
        '== "committed":',
        '== "":',
        f"{OWN_WRITES} removes_the_guard",
    ),
    Broken(
        "a batch may change a row as often as it likes",
        pipeline.databases.postgres.session.PostgresSession.write_rows,
        "target.key) > VERSIONS:",
        "target.key) < 0:",
        "tests/sinks/test_apps.py row_too_often",
    ),
    Broken(
        "a COMMIT that was a rollback is taken for done",
        pipeline.databases.postgres.session.PostgresSession.commit,
        '        if done != "COMMIT":\n',
        "        if done is None:\n",
        f"{OWN_WRITES} is_a_rollback",
    ),
    Broken(
        "a test of an app writes to the file that its sink names",
        pipeline.testing.databases.DriverDatabases.__init__,
        "        self._real = RealDatabases() if connect else None\n",
        "        self._real = RealDatabases()\n",
        f"{DRIVER} writes_no_file",
    ),
    Broken(
        "databases of one test are those of the next",
        pipeline.databases.sqlite.SqliteInMemory.__init__,
        "file:pipeline-{token_hex(8)}?mode",
        "file:pipeline-shared?mode",
        f"{DRIVER} writes_no_file",
    ),
    Broken(
        "a pooler of transactions is not refused",
        pipeline.databases.postgres.pooling.refuse_transaction_pooling,
        "    if changed:\n",
        "    if False:\n",
        f"{PLACES} pooler_of_transactions",
    ),
    Broken(
        "a session that a pooler has exchanged passes the fence",
        pipeline.databases.postgres.session.PostgresSession,
        'SAME_SESSION = " AND pg_backend_pid() = %s"',
        'SAME_SESSION = " AND %s > 0"',
        f"{PLACES} found_by_the_fence",
    ),
    Broken(
        "the search path of the moment chooses the table of positions",
        pipeline.databases.postgres.session.PostgresSession.positions,
        "        return self._pinned.name or POSITIONS\n",
        "        return POSITIONS\n",
        f"{PLACES} changed_search_path",
    ),
    Broken(
        "a group whose positions are in another schema is taken for a new one",
        pipeline.runtime.sinks.backend.rows_of,
        "    if not rows and (others",
        "    if rows and (others",
        f"{PLACES} stop_a_start",
    ),
    Broken(
        "keys that are equal in Python are taken for equal in the database",
        pipeline.core.row_sets.as_sets,
        "        if kind.key is None or {*map(type, values)} != {kind.key} or not kind.comparable(values):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and (bigint or citext)",
    ),
    Broken(
        "a row that might be refused is left out of a batch",
        pipeline.core.row_sets._merged,
        "        if not facts.unchecked or not _sure(replaced, columns, facts):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and check",
    ),
    Broken(
        "a row keeps columns of the one that was deleted before it",
        pipeline.core.row_sets._merged,
        "    return Sets(list(deletes), rows)\n",
        "    return Sets([each for each in deletes if isinstance(changes[last[each]], Gone)], rows)\n",
        "tests/sinks/test_merging.py plain_table",
    ),
    Broken(
        "rows that meet in another constraint are written out of order",
        pipeline.core.row_sets._merged,
        "    if not facts.independent:\n",
        "    if False:\n",
        f"{BATCH_ENDS} postgresql and unique",
    ),
    Broken(
        "rows of a table with triggers are written in sets",
        pipeline.core.row_sets.as_sets,
        "    if facts is None or not facts.in_sets or not changes:\n",
        "    if facts is None or not changes:\n",
        f"{BATCH_ENDS} postgresql and counter",
    ),
    Broken(
        "values are copied whose text is read in another way",
        pipeline.core.row_sets.fits,
        "        if not types - {NoneType} <= kind.takes:\n            return False\n        if kind.readable",
        "        if kind.readable",
        f"{BATCH_ENDS} small_and",
    ),
    Broken(
        "a write function may commit the positions",
        pipeline.databases.postgres.own_writes.run_own_write,
        'WITH HOLD FOR {_GUARD}"',
        'WITH HOLD FOR SELECT 1"',
        f"{OWN_WRITES} commits_nothing and connection.execute-continues",
    ),
    Broken(
        "a transaction that a write function ended is not found when it raises",
        pipeline.databases.postgres.own_writes.run_own_write,
        '        _send(connection, f"ROLLBACK TO SAVEPOINT {mark}")\n',
        "        pass\n",
        f"{OWN_WRITES} commits_nothing and rollback and raises",
    ),
    Broken(
        "a transaction that a write function ended is not found when it returns",
        pipeline.databases.postgres.own_writes.run_own_write,
        'f"RELEASE SAVEPOINT {mark}; CLOSE {mark}"',
        '"SELECT 1"',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "what a write function sends after it ended the transaction is committed",
        pipeline.databases.postgres.session.PostgresSession.begin,
        "            self._connection.autocommit = False\n",
        '            self._run(b"BEGIN")\n',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "a transaction that SQLite rolled back for a write function is not found",
        pipeline.databases.sqlite.SqliteSession._release,
        '            self._connection.execute(f"RELEASE {mark}")\n',
        "            pass\n",
        f"{OWN_WRITES} sqlites_transaction and ROLLBACK",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)

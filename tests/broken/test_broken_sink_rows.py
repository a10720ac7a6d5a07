"""Broken on purpose: what sinks write, in which transaction, session and schema."""

from __future__ import annotations

import pytest

from tests.support.breaking import Broken, Copy, name_of

BATCH_ENDS = "tests/sinks/test_batch_ends.py"
DRIVER = "tests/testing/test_driver_sinks.py"
OWN_WRITES = "tests/sinks/test_own_writes.py"
PLACES = "tests/sinks/test_session_places.py"

ROWS = [
    Broken(
        "a write function that has committed is said to have written nothing",
        "databases/postgres/own_writes.py",
        '== "committed":',
        '== "":',
        f"{OWN_WRITES} removes_the_guard",
    ),
    Broken(
        "a batch may change a row as often as it likes",
        "databases/postgres/session.py",
        "target.key) > VERSIONS:",
        "target.key) < 0:",
        "tests/sinks/test_apps.py row_too_often",
    ),
    Broken(
        "a COMMIT that was a rollback is taken for done",
        "databases/postgres/session.py",
        '        if done != "COMMIT":\n',
        "        if done is None:\n",
        f"{OWN_WRITES} is_a_rollback",
    ),
    Broken(
        "a test of an app writes to the file that its sink names",
        "testing/memory_database.py",
        "        self._real = RealDatabases() if real else None\n",
        "        self._real = RealDatabases()\n",
        f"{DRIVER} writes_no_file",
    ),
    Broken(
        "databases of one test are those of the next",
        "databases/sqlite_memory.py",
        "file:pipeline-{token_hex(8)}?mode",
        "file:pipeline-shared?mode",
        f"{DRIVER} writes_no_file",
    ),
    Broken(
        "a pooler of transactions is not refused",
        "databases/postgres/pooling.py",
        "    if changed:\n",
        "    if False:\n",
        f"{PLACES} pooler_of_transactions",
    ),
    Broken(
        "a session that a pooler has exchanged passes the fence",
        "databases/postgres/session.py",
        'SAME_SESSION = " AND pg_backend_pid() = %s"',
        'SAME_SESSION = " AND %s > 0"',
        f"{PLACES} found_by_the_fence",
    ),
    Broken(
        "the search path of the moment chooses the table of positions",
        "databases/postgres/session.py",
        "        return self._pinned.name or POSITIONS\n",
        "        return POSITIONS\n",
        f"{PLACES} changed_search_path",
    ),
    Broken(
        "a group whose positions are in another schema is taken for a new one",
        "runtime/sinks/backend.py",
        "    if not rows and (others",
        "    if rows and (others",
        f"{PLACES} stop_a_start",
    ),
    Broken(
        "keys that are equal in Python are taken for equal in the database",
        "core/row_sets.py",
        "        if kind.key is None or {*map(type, values)} != {kind.key} or not kind.comparable(values):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and (bigint or citext)",
    ),
    Broken(
        "a row that might be refused is left out of a batch",
        "core/row_sets.py",
        "        if not facts.unchecked or not _sure(replaced, columns, facts):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and check",
    ),
    Broken(
        "a row keeps columns of the one that was deleted before it",
        "core/row_sets.py",
        "    return Sets(list(deletes), rows)\n",
        "    return Sets([each for each in deletes if isinstance(changes[last[each]], Gone)], rows)\n",
        "tests/sinks/test_merging.py plain_table",
    ),
    Broken(
        "rows that meet in another constraint are written out of order",
        "core/row_sets.py",
        "    if not facts.independent:\n",
        "    if False:\n",
        f"{BATCH_ENDS} postgresql and unique",
    ),
    Broken(
        "rows of a table with triggers are written in sets",
        "core/row_sets.py",
        "    if facts is None or not facts.in_sets or not changes:\n",
        "    if facts is None or not changes:\n",
        f"{BATCH_ENDS} postgresql and counter",
    ),
    Broken(
        "values are copied whose text is read in another way",
        "core/row_sets.py",
        "        if not types - {NoneType} <= kind.takes:\n            return False\n        if kind.readable",
        "        if kind.readable",
        f"{BATCH_ENDS} small_and",
    ),
    Broken(
        "a write function may commit the positions",
        "databases/postgres/own_writes.py",
        'WITH HOLD FOR {_GUARD}"',
        'WITH HOLD FOR SELECT 1"',
        f"{OWN_WRITES} commits_nothing and connection.execute-continues",
    ),
    Broken(
        "a transaction that a write function ended is not found when it raises",
        "databases/postgres/own_writes.py",
        '        _send(connection, f"ROLLBACK TO SAVEPOINT {mark}")\n',
        "        pass\n",
        f"{OWN_WRITES} commits_nothing and rollback and raises",
    ),
    Broken(
        "a transaction that a write function ended is not found when it returns",
        "databases/postgres/own_writes.py",
        'f"RELEASE SAVEPOINT {mark}; CLOSE {mark}"',
        '"SELECT 1"',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "what a write function sends after it ended the transaction is committed",
        "databases/postgres/session.py",
        "            self._connection.autocommit = False\n",
        '            self._run(b"BEGIN")\n',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "a transaction that SQLite rolled back for a write function is not found",
        "databases/sqlite.py",
        '            self._connection.execute(f"RELEASE {mark}")\n',
        "            pass\n",
        f"{OWN_WRITES} sqlites_transaction and ROLLBACK",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)

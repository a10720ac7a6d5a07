"""Broken on purpose: sinks: positions, epochs and commits in doubt."""

from __future__ import annotations

import pytest

from tests.broken.breaking import Broken, Copy, name_of

SINKS = "tests/runtime/test_sinks.py"
SESSIONS = "tests/sinks/test_session_contract.py"
BATCH_ENDS = "tests/sinks/test_batch_ends.py"
PLACES = "tests/sinks/test_session_places.py"
OWN_WRITES = "tests/sinks/test_own_writes.py"

ROWS = [
    Broken(
        "a test of an app writes to the file that its sink names",
        "testing/memory_database.py",
        "        self._real = RealDatabases() if real else None\n",
        "        self._real = RealDatabases()\n",
        "tests/testing/test_driver_sinks.py writes_no_file",
    ),
    Broken(
        "databases of one test are those of the next",
        "sinks/sqlite_memory.py",
        "file:pipeline-{token_hex(8)}?mode",
        "file:pipeline-shared?mode",
        "tests/testing/test_driver_sinks.py writes_no_file",
    ),
    Broken(
        "a pooler of transactions is not refused",
        "sinks/postgres/pooling.py",
        "    if changed:\n",
        "    if False:\n",
        f"{PLACES} pooler_of_transactions",
    ),
    Broken(
        "a session that a pooler has exchanged passes the fence",
        "sinks/postgres/session.py",
        'SAME_SESSION = " AND pg_backend_pid() = %s"',
        'SAME_SESSION = " AND %s > 0"',
        f"{PLACES} found_by_the_fence",
    ),
    Broken(
        "the search path of the moment chooses the table of positions",
        "sinks/postgres/session.py",
        "        return self._pinned.name or POSITIONS\n",
        "        return POSITIONS\n",
        f"{PLACES} changed_search_path",
    ),
    Broken(
        "a group whose positions are in another schema is taken for a new one",
        "runtime/sinks/authority.py",
        "    if not rows and (others",
        "    if rows and (others",
        f"{PLACES} stop_a_start",
    ),
    Broken(
        "keys that are equal in Python are taken for equal in the database",
        "sinks/merging.py",
        "        if kind.key is None or {*map(type, values)} != {kind.key} or not kind.comparable(values):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and (bigint or citext)",
    ),
    Broken(
        "a row that might be refused is left out of a batch",
        "sinks/merging.py",
        "        if not facts.unchecked or not _sure(replaced, columns, facts):\n",
        "        if False:\n",
        f"{BATCH_ENDS} postgresql and check",
    ),
    Broken(
        "a row keeps columns of the one that was deleted before it",
        "sinks/merging.py",
        "    return Sets(list(deletes), rows)\n",
        "    return Sets([each for each in deletes if isinstance(changes[last[each]], Gone)], rows)\n",
        "tests/sinks/test_merging.py plain_table",
    ),
    Broken(
        "rows that meet in another constraint are written out of order",
        "sinks/merging.py",
        "    if not facts.independent:\n",
        "    if False:\n",
        f"{BATCH_ENDS} postgresql and unique",
    ),
    Broken(
        "rows of a table with triggers are written in sets",
        "sinks/merging.py",
        "    if facts is None or not facts.in_sets or not changes:\n",
        "    if facts is None or not changes:\n",
        f"{BATCH_ENDS} postgresql and counter",
    ),
    Broken(
        "values are copied whose text is read in another way",
        "sinks/merging.py",
        "        if not types - {NoneType} <= kind.takes:\n            return False\n        if kind.readable",
        "        if kind.readable",
        f"{BATCH_ENDS} small_and",
    ),
    Broken(
        "a write function may commit the positions",
        "sinks/postgres/own_writes.py",
        "WITH HOLD FOR {_GUARD}",
        "WITH HOLD FOR SELECT 1",
        f"{OWN_WRITES} commits_nothing and connection.execute-continues",
    ),
    Broken(
        "a transaction that a write function ended is not found when it raises",
        "sinks/postgres/own_writes.py",
        '        _send(connection, f"ROLLBACK TO SAVEPOINT {mark}")\n',
        "        pass\n",
        f"{OWN_WRITES} commits_nothing and rollback and raises",
    ),
    Broken(
        "a transaction that a write function ended is not found when it returns",
        "sinks/postgres/own_writes.py",
        'f"RELEASE SAVEPOINT {mark}; CLOSE {mark}"',
        '"SELECT 1"',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "what a write function sends after it ended the transaction is committed",
        "sinks/postgres/session.py",
        "            self._connection.autocommit = False\n",
        '            self._run(b"BEGIN")\n',
        f"{OWN_WRITES} commits_nothing and rollback and continues",
    ),
    Broken(
        "a transaction that SQLite rolled back for a write function is not found",
        "sinks/sqlite.py",
        '            self._connection.execute(f"RELEASE {mark}")\n',
        "            pass\n",
        f"{OWN_WRITES} sqlites_transaction and ROLLBACK",
    ),
    Broken(
        "tasks of a group of sinks that has not begun are taken",
        "runtime/worker.py",
        "busy = [*self._restoring, *self._fenced, *self._beginnings.tasks]",
        "busy = [*self._restoring, *self._fenced]",
        "tests/sinks/test_fleet.py cannot_reach",
    ),
    Broken(
        "a sink's epoch is not compared",
        "sinks/sql.py",
        "AND epoch = {m} ",
        "AND epoch >= 0 * {m} ",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink's position is not compared",
        "sinks/sql.py",
        "AND next_offset = {m}",
        "AND next_offset >= 0 * {m}",
        f"{SESSIONS} only_the_holder",
    ),
    Broken(
        "a sink writes though the fence has said no",
        "runtime/sinks/writer.py",
        "            if not session.move(hold, after):  # 3\n",
        "            if session.move(hold, after) is None:\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink writes its rows before the fence",
        "runtime/sinks/writer.py",
        "            if not session.move(hold, after):  # 3\n",
        "            session.write(writes)\n            if not session.move(hold, after):\n",
        f"{SINKS} fenced_owner",
    ),
    Broken(
        "a sink's doubtful commit is taken for done",
        "runtime/sinks/writer.py",
        "        return outcome is Outcome.COMMITTED\n",
        "        return True\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is done again",
        "runtime/sinks/writer.py",
        "        return outcome is Outcome.COMMITTED\n",
        "        return False\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's doubtful commit is forgotten",
        "runtime/sinks/writer.py",
        "            self._in_doubt = dict(after)\n",
        "            self._moved(after)\n",
        f"{SINKS} outcome_is_unknown",
    ),
    Broken(
        "a sink's owner does not raise the epoch beyond what was heard of",
        "core/sinking.py",
        "    return max([noted, ",
        "    return max([0, ",
        f"{SINKS} brings_an_epoch_back",
    ),
    Broken(
        "a sink group that lost its positions is taken for a new one",
        "core/sinking.py",
        "    if not rows and traces:\n",
        "    if False:\n",
        f"{SINKS} positions_that_are_gone",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)

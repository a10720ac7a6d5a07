"""The writer of one sink task alone: claims, and commits in doubt that others have come after."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline import Postgres
from pipeline.core.names import TaskId
from pipeline.core.sink_positions import Hold, InputNow, PositionRow
from pipeline.errors import ConfigError, FatalTaskError, FencedError, SupersededError, UnknownOutcomeError
from pipeline.runtime.sinks.sessions import Sessions
from pipeline.runtime.sinks.writer import SinkWriter, claim
from pipeline.testing import DriverDatabases
from tests.support.sinks.totals import DSN, Totals

TASK = TaskId("shop", "rows", 0)
INPUTS = {"orders": InputNow("id", "cluster", 1)}
ROW = PositionRow("orders", 0, 5, 0, "", "", "id", "cluster", 1)
DOUBT = UnknownOutcomeError("the connection was cut in the middle of COMMIT")


class Shop:
    """The rows of a task in a database, and the processes that claim it."""

    def __init__(self, *rows: PositionRow) -> None:
        sink = Postgres[str, int](DSN, "t", key="k", row=lambda _event: None)
        databases = DriverDatabases()
        self.sessions = Sessions(lambda: databases.open(sink, "shop"))
        self.environment = Totals().driver.environment()
        self.put(rows or (ROW,))
        self.database = databases.of(sink)

    def put(self, rows: Sequence[PositionRow]) -> None:
        with self.sessions.one() as session:
            session.begin()
            session.put(TASK.group_id, rows, keep=False)
            session.commit()

    def claim(self, worker: str = "a", noted: int = 0) -> SinkWriter:
        return SinkWriter(self._claimed(worker, noted), self.sessions, self.environment)

    def _claimed(self, worker: str, noted: int) -> Hold:
        return claim(TASK, 1, worker, f"process of {worker}", noted, INPUTS, self.sessions, self.environment)


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_in_doubt_is_the_next_owners_business_once_there_is_one(happened: bool) -> None:
    """It has begun where the rows stood; what this one writes after it would be doubled."""
    shop = Shop()
    older = shop.claim("a")
    shop.database.fail_next("commit", DOUBT, after=happened)
    with pytest.raises(UnknownOutcomeError):
        older.write({"orders": 6}, [])
    newer = shop.claim("b")
    assert newer.hold.positions == {"orders": 6 if happened else 5}
    with pytest.raises(FencedError, match=r"its epoch is 1, the database has \[2\]"):
        older.write({"orders": 6}, [])
    assert newer.write({"orders": 7}, []).positions == {"orders": 7}


def test_a_database_that_came_back_while_a_commit_was_in_doubt_is_followed() -> None:
    """Its positions are neither those before the commit nor those after it: its rows are of that moment, too."""
    shop = Shop()
    writer = shop.claim()
    backup = shop.database.copy()
    writer.write({"orders": 6}, [])
    shop.database.fail_next("commit", DOUBT, after=True)
    with pytest.raises(UnknownOutcomeError):
        writer.write({"orders": 9}, [])
    shop.database.restore(backup)
    with pytest.raises(SupersededError, match="does not have the positions"):
        writer.write({"orders": 9}, [])


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_that_was_settled_holds_no_lock_any_more(happened: bool) -> None:
    """The session goes back to the others: an open transaction in it would keep the rows from every next owner."""
    shop = Shop()
    writer = shop.claim()
    shop.database.fail_next("commit", DOUBT, after=happened)
    with pytest.raises(UnknownOutcomeError):
        writer.write({"orders": 6}, [])
    assert writer.write({"orders": 6}, []).positions == {"orders": 6}
    assert shop.database.holder is None
    assert writer.write({"orders": 7}, []).positions == {"orders": 7}


def test_a_task_whose_positions_are_gone_is_not_taken() -> None:
    """Beginning anywhere would lose rows, or write them twice; nothing is written either."""
    shop = Shop(ROW._replace(topic="other"))
    before = shop.database.positions()
    with pytest.raises(FatalTaskError, match=r"no position in orders\[0\] any more") as caught:
        shop.claim()
    assert "sink-positions-lost.md" in (caught.value.hint or "")
    assert shop.database.positions() == before


@pytest.mark.parametrize("changed", [{"topic_id": "before"}, {"cluster_id": "staging"}, {"partitions": 2}])
def test_a_task_whose_input_was_replaced_is_not_taken(changed: dict[str, object]) -> None:
    """The group was checked when its worker started; the topic may have been created again since."""
    shop = Shop(ROW._replace(**changed))  # type: ignore[arg-type]
    before = shop.database.positions()
    with pytest.raises(ConfigError):
        shop.claim()
    assert shop.database.positions() == before


def test_a_claim_keeps_positions_of_topics_that_are_not_read_now() -> None:
    """A handler that returns late continues where it was."""
    shop = Shop(ROW, ROW._replace(topic="other", position=77))
    assert shop.claim(noted=4).hold.positions == {"orders": 5}
    assert {(row.topic, row.position, row.epoch) for row in shop.database.positions()} == {
        ("orders", 5, 5),
        ("other", 77, 5),
    }

"""What a worker refuses to start with."""

from __future__ import annotations

import pytest

from pipeline.app import declared_app
from pipeline.errors import ConfigError
from pipeline.ports import TopicSpec
from tests.support.runtime.sums import Sums


def test_a_journal_with_another_retention_is_refused() -> None:
    """It would delete the only copy of the state after a week."""
    sums = Sums()
    sums.driver.run()
    sums.driver.broker.configure("sums.main.journal", {"retention.ms": "604800000"})
    sums.driver.restart()
    with pytest.raises(ConfigError, match=r"retention\.ms=604800000"):
        sums.driver.run()


def test_inputs_with_different_numbers_of_partitions_are_refused_with_the_numbers() -> None:
    """A task owns one partition number of all of them; a key must have the same one in each."""
    sums = Sums(partitions=2)
    other = sums.app.topic("other", key=str, value=int)
    sums.driver.broker.create(TopicSpec("other", 3))
    sums.app.handler(other)(lambda _event, _ctx: None)
    with pytest.raises(
        ConfigError, match="must have the same number of partitions: numbers has 2, other has 3"
    ) as caught:
        sums.driver.run()
    assert caught.value.hint is not None
    assert "create them with the same number" in caught.value.hint


def test_a_journal_that_refuses_large_entries_is_refused_with_the_command_that_fixes_it() -> None:
    """It would do until the first large commit, which then could never be made."""
    sums = Sums()
    sums.driver.run()
    sums.driver.broker.configure("sums.main.journal", {"max.message.bytes": "100000"})
    sums.driver.restart()
    with pytest.raises(ConfigError, match=r"max\.message\.bytes=100000") as caught:
        sums.driver.run()
    assert (caught.value.hint or "").endswith(" max.message.bytes=1048588")


def test_a_changed_table_schema_is_refused_with_both_schemas() -> None:
    """With defaults everywhere a renamed field would read as zero, silently."""
    sums = Sums.begun()
    other = Sums()
    declared_app(other.app).main.tables.clear()
    changed = other.app.table("totals", key=str, value=int)
    assert changed.name == "totals"
    sums.driver.restart(app=other.app)
    with pytest.raises(ConfigError, match=r"the schema of table totals changed") as caught:
        sums.driver.run()
    assert "count:int" in str(caught.value)

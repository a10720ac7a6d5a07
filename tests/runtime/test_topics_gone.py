"""Topics that are deleted or grow under a running worker: it says what to do, and nothing is lost."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event, Topic
from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError
from pipeline.ports import TopicSpec
from pipeline.runtime.restore.genesis import JOURNAL_CONFIG, JOURNAL_MESSAGE_BYTES
from pipeline.testing import TestDriver
from tests.support.runtime.sums import Sums


def run_to_failure(driver: TestDriver) -> FatalTaskError:
    """Until the worker has looked at its topics, and has stopped for one of them."""
    driver.clock.advance(driver.settings.check_interval_s)
    with pytest.raises(FatalTaskError) as caught:
        driver.run()
    return caught.value


def looked_at(driver: TestDriver) -> TestDriver:
    """Let the worker look at its topics while all is well."""
    driver.run()
    driver.clock.advance(driver.settings.check_interval_s)
    driver.run()
    return driver


@pytest.mark.unverified
def test_an_output_topic_that_is_deleted_stops_the_tasks_that_write_to_it() -> None:
    """Otherwise each commit would be aborted without naming a cause; its records are handled again."""
    sums = Sums(deferred=True)
    sums.send(1)
    driver = looked_at(sums.driver)
    driver.broker.delete("sums")
    error = run_to_failure(driver)
    assert error.message == "task sums/main/0: topic sums, which this task writes to, was deleted"
    assert "pipeline topics apply" in (error.hint or "")
    driver.broker.create(TopicSpec("sums", 1))
    driver.restart()
    sums.send(2)
    driver.run()
    assert [event.value.total for event in driver.outputs(sums.sums)] == [3]


@pytest.mark.parametrize("topic", ["numbers", "sums"])
def test_a_topic_that_gets_partitions_stops_the_tasks_that_read_it_or_write_to_it(topic: str) -> None:
    """Keys move away from the state that they have here, or with the readers of the output."""
    sums = Sums()
    sums.send(1)
    driver = looked_at(sums.driver)
    driver.broker.add_partitions(topic, 1)
    error = run_to_failure(driver)
    assert f"topic {topic} had 1 partition and has 2" in error.message
    assert "runbooks/partitions-changed.md" in (error.hint or "")


def test_an_output_topic_that_a_task_has_never_written_to_stops_no_task() -> None:
    """A topic of another group, or of a case that never came up."""
    sums = Sums()
    driver = looked_at(sums.driver)
    driver.broker.delete("sums")
    driver.clock.advance(driver.settings.check_interval_s)
    driver.run()


@pytest.mark.unverified
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_journal_that_is_deleted_stops_its_idle_tasks(again: bool, checked: bool) -> None:
    """Restores would be retried forever, or a journal that an operator has created would be taken for this one."""
    sums = Sums()
    sums.send(1)
    driver = looked_at(sums.driver) if checked else sums.driver
    driver.run()
    driver.broker.delete("sums.main.journal")
    if again:
        right = {**JOURNAL_CONFIG, "max.message.bytes": str(JOURNAL_MESSAGE_BYTES)}
        driver.broker.create(TopicSpec("sums.main.journal", 1, config=right))
    error = run_to_failure(driver)
    suffix = " and created again" if again else ""
    assert error.message == f"task sums/main/0: its journal sums.main.journal was deleted{suffix}"
    assert "runbooks/journal-lost.md" in (error.hint or "")
    driver.restart()
    with pytest.raises(FatalTaskError, match=r"existed before|holds no entry"):
        driver.run()
    assert driver.table(sums.totals)["a"].total == 1


def with_dead_letters() -> tuple[TestDriver, Topic[str, int]]:
    """An app whose group has dead letters; of its topic `numbers` one record is processed."""
    app = App("careful")
    numbers = app.topic("numbers", key=str, value=int)
    app.handler(numbers, on_error="dead_letter")(lambda _event, _ctx: None)
    driver = TestDriver(app, partitions=1)
    driver.send(numbers, "a", 1)
    driver.run()
    driver.stop()
    return driver, numbers


def test_records_that_retention_removed_are_named_and_not_a_deleted_topic() -> None:
    """The message must say which topic was deleted, or the operator would restart the worker in vain."""
    driver, numbers = with_dead_letters()
    for number in range(5):
        driver.send(numbers, "a", number)
    driver.broker.truncate(TopicPartition("numbers", 0), 4)
    driver.restart()
    with pytest.raises(
        FatalTaskError, match=r"numbers\[0\]: position 1 is outside what it holds, 4 to 6"
    ) as caught:
        driver.run()
    assert "runbooks/input-expired.md" in (caught.value.hint or "")


def test_a_dead_letter_topic_that_is_deleted_stops_the_group_and_comes_back_with_the_next_start() -> None:
    """The record that needs the topic would be retried forever."""
    app = App("careful")
    numbers = app.topic("numbers", key=str, value=int)

    @app.handler(numbers, on_error="dead_letter")
    def refuse(event: Event[str, int], ctx: Context) -> None:
        raise ValueError("no")

    driver = TestDriver(app)
    driver.send(numbers, "a", 1)
    looked_at(driver)
    driver.broker.delete("careful.main.dead-letters")
    error = run_to_failure(driver)
    assert "topic careful.main.dead-letters, which this task writes to, was deleted" in error.message
    assert "start the worker again" in (error.hint or "")
    driver.restart()
    driver.send(numbers, "a", 2)
    driver.run()
    assert [letter.value for letter in driver.dead_letters()] == [b"2"]

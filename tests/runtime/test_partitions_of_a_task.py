"""Several partitions of one task: an error, a retry or an idle end concerns one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.journal_format import format_of_chunk
from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import ConfigError, HandlerError
from pipeline.ports import Output, TopicSpec
from pipeline.runtime.assignment.retried import INTERVAL_S
from pipeline.runtime.idle_positions import QUIET_S
from pipeline.runtime.restore.genesis import JOURNAL_CONFIG
from pipeline.runtime.status import read_status
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.checker.tracing import made_from
from tests.support.runtime.format_1 import start_in_format_1

PARTITIONS, TASKS = 4, 2
BAD = 13


class Echo:
    """An app that repeats each number, and raises at bad ones until `fixed`."""

    def __init__(self, *, tasks: int | None = TASKS, retries: int = 0) -> None:
        self.app = App("echo", tasks=tasks)
        self.numbers = self.app.topic("numbers", key=str, value=int)
        self.out = self.app.topic("out", key=str, value=int)
        self.fixed = False
        self.app.handler(self.numbers, retries=retries, retry_delay_s=1.0)(self.repeat)

    def repeat(self, event: Event[str, int], ctx: Context) -> None:
        if event.value == BAD and not self.fixed:
            raise ValueError("unlucky")
        ctx.send(self.out, event.key, event.value, headers=made_from("echo.main", event))


def driver_of(echo: Echo, max_poll_records: int = 10_000, partitions: int = PARTITIONS) -> TestDriver:
    settings = WorkerSettings(worker_id="test", max_poll_records=max_poll_records)
    return TestDriver(echo.app, partitions=partitions, settings=settings)


def test_a_first_start_asks_for_all_positions_of_a_task_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client and a request for each of 1,000 partitions took longer than everything else at the start."""
    asked: list[list[int]] = []
    starts = MemoryJournalReader.starts

    def noted(self: MemoryJournalReader, places: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        asked.append([place.partition for place in places])
        return starts(self, places)

    monkeypatch.setattr(MemoryJournalReader, "starts", noted)
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1)
    driver.run()
    assert sorted(asked) == [[0, 2], [1, 3]]
    assert values(driver, echo) == [1] * PARTITIONS


def sent_to_each(driver: TestDriver, echo: Echo, *values: int, bad_in: int = 2) -> None:
    for value in values:
        for partition in range(PARTITIONS):
            bad = value == BAD and partition != bad_in
            driver.send(echo.numbers, "a", 0 if bad else value, partition=partition)


def values(driver: TestDriver, echo: Echo) -> list[int]:
    return sorted(event.value for event in driver.outputs(echo.out))


def test_a_record_stops_only_its_partition() -> None:
    """With one task for each partition, the others would continue, too."""
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1, BAD, 2)
    driver.run()
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    (event,) = driver.log_events("partition_stopped")
    assert (event["task"], event["partitions"]) == (0, [0, 2])
    assert (event["topic"], event["partition"], event["offset"]) == ("numbers", 2, 1)
    assert event["hint"].startswith("fix the handler")


def test_a_status_names_the_partitions_that_are_stopped() -> None:
    """Their lag alone would look like that of a slow task."""
    echo = Echo()
    driver = driver_of(echo, partitions=6)
    for partition in (0, 2, 4):
        driver.send(echo.numbers, "a", BAD if partition else 1, partition=partition)
    for _ in range(3):
        driver.run()
        driver.clock.advance(INTERVAL_S)
    broker, now_ms = driver.broker, driver.clock.wall_ms()
    status = read_status("echo", MemoryCluster(broker), MemoryJournalReader(broker), now_ms)
    (problem,) = status.problems
    because = "cannot be processed by Echo.repeat: ValueError: unlucky"
    assert problem.text == (
        "echo/main/0: partitions 2, 4 of its inputs are stopped: "
        f"the record numbers[2] offset 0 {because}; the record numbers[4] offset 0 {because}"
    )
    assert problem.hint.startswith("fix the handler or the record and start the worker again")
    assert problem.hint.endswith("runbooks/poison-record.md")


def test_a_stopped_partition_continues_after_a_restart() -> None:
    """Its position is that of the record, whatever the other partitions have committed."""
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1, BAD, 2)
    driver.run()
    echo.fixed = True
    driver.restart(empty_disk=True)
    driver.run()
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, BAD]


def test_later_records_of_a_stopped_partition_are_left_to_the_next_owner() -> None:
    """Also those that waited, and those that arrive while the other partitions continue."""
    echo = Echo()
    driver = driver_of(echo, max_poll_records=1)
    driver.run()
    sent_to_each(driver, echo, BAD, 1, 2)
    driver.run()
    sent_to_each(driver, echo, 3)
    driver.run()
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    echo.fixed = True
    driver.restart(empty_disk=True)
    driver.run()
    assert values(driver, echo) == [0, 0, 0, *[1] * 4, *[2] * 4, *[3] * 4, BAD]


def test_a_record_stops_the_other_topics_of_its_partition() -> None:
    """Their handlers share its rows; records of one poll arrive although the partition is paused."""
    echo = Echo()
    more = echo.app.topic("more", key=str, value=int)
    echo.app.handler(more)(echo.repeat)
    driver = driver_of(echo)
    for partition in range(PARTITIONS):
        for topic in (echo.numbers, more):
            driver.send(topic, "a", BAD if partition == 2 else 1, partition=partition)
    driver.run()
    assert len(driver.log_events("partition_stopped")) == 1
    assert values(driver, echo) == [1] * 6


def test_records_that_waited_behind_one_that_stops_are_left_to_the_next_owner() -> None:
    """They are later records of its partition, wherever they wait."""
    echo = Echo(retries=1)
    driver = driver_of(echo)
    driver.run()
    sent_to_each(driver, echo, BAD, 1, 2)
    for _ in range(10):
        driver.run()
        driver.clock.advance(1.0)
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert driver.positions(partition=2)["numbers"] == 0


def test_an_idle_end_of_one_partition_keeps_the_positions_of_the_others() -> None:
    """It is an entry without records: the next owner continues from its positions."""
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1)
    driver.run()
    before = [driver.positions(partition=each)["numbers"] for each in (0, 2)]
    producer = driver.environment().producers.open("someone")
    producer.init()
    producer.begin()
    key = next(k for k in map(str, range(100)) if partition_of(k.encode(), PARTITIONS) == 2)
    producer.send([Output("numbers", key.encode(), b"7", driver.clock.wall_ms(), ())])
    producer.flush()
    producer.abort()
    for _ in range(int(3 * QUIET_S)):
        driver.run()
        driver.clock.advance(1.0)
    assert [driver.positions(partition=each)["numbers"] for each in (0, 2)] == [before[0], before[1] + 2]
    driver.restart(empty_disk=True)
    driver.run()
    assert values(driver, echo) == [1] * 4


def test_a_task_fails_once_all_its_partitions_are_stopped() -> None:
    """A worker that can do nothing more must say so and end."""
    echo = Echo()
    driver = driver_of(echo)
    for partition in (0, 2):
        driver.send(echo.numbers, "a", BAD, partition=partition)
    with pytest.raises(HandlerError, match="task echo/main/0"):
        driver.run()
    assert list(driver.failures) == [("main", 0)]


def test_others_commit_while_one_partition_retries() -> None:
    """A retry may take minutes; the record's position stays, and the others' positions move."""
    echo = Echo(retries=5)
    driver = driver_of(echo)
    driver.run()
    sent_to_each(driver, echo, 1, BAD, 2)
    for _ in range(20):
        driver.step()
        driver.clock.advance(0.02)
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert [driver.positions(partition=each) for each in (0, 2)] == [{"numbers": 3}, {"numbers": 1}]
    driver.restart(empty_disk=True)
    echo.fixed = True
    driver.run()
    assert values(driver, echo) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, BAD]


def test_a_partition_that_retries_is_paused_alone() -> None:
    """The records behind it would fill the memory, and the other partitions must not wait for it."""
    echo = Echo(retries=5)
    driver = driver_of(echo, max_poll_records=5)
    driver.run()
    driver.send(echo.numbers, "a", BAD, partition=2)
    for value in range(1, 60):
        driver.send(echo.numbers, "a", value if value != BAD else 0, partition=2)
        driver.send(echo.numbers, "a", value if value != BAD else 0, partition=0)
    for _ in range(60):
        driver.step()
        driver.clock.advance(0.01)
    (run,) = driver.worker.runs
    assert 10 < run.tasks[0].waiting[2] <= 15
    assert list(run.tasks[0].waiting) == [2]
    assert len(values(driver, echo)) == 59
    echo.fixed = True
    for _ in range(30):
        driver.run()
        driver.clock.advance(1.0)
    assert len(values(driver, echo)) == 119


def test_an_idle_end_is_committed_while_the_task_is_busy() -> None:
    """A busy partition must not keep the positions of the others below the start of their logs."""
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1)
    driver.run()
    producer = driver.environment().producers.open("someone")
    producer.init()
    for partition in range(PARTITIONS):
        producer.begin()
        key = next(k for k in map(str, range(100)) if partition_of(k.encode(), PARTITIONS) == partition)
        producer.send([Output("numbers", key.encode(), b"7", driver.clock.wall_ms(), ())])
        producer.flush()
        producer.abort()
    before = driver.positions(partition=2)
    for value in range(int(3 * QUIET_S)):  # partition 0 is never idle
        driver.send(echo.numbers, "a", value + 100, partition=0)
        driver.run()
        driver.clock.advance(1.0)
    assert driver.positions(partition=2)["numbers"] == before["numbers"] + 2


@pytest.mark.parametrize("tasks", [1, 3, 4])
def test_another_number_of_tasks_is_refused(tasks: int) -> None:
    """Rows of a partition would be in the state of another task."""
    echo = Echo()
    driver = driver_of(echo)
    driver.run()
    declared_app(echo.app).main.tasks = tasks
    driver.restart()
    with pytest.raises(ConfigError, match=f"tasks={tasks}, and was started with 2") as refused:
        driver.run()
    assert "pipeline migrate" in str(refused.value.hint)


def test_a_known_group_need_not_declare_its_tasks() -> None:
    """The journal has the number."""
    echo = Echo()
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1)
    driver.run()
    declared_app(echo.app).main.tasks = None
    driver.restart(empty_disk=True)
    sent_to_each(driver, echo, 2)
    driver.run()
    assert values(driver, echo) == [1] * 4 + [2] * 4
    assert len(driver.worker.runs[0].tasks) == TASKS


def test_more_tasks_than_partitions_are_refused() -> None:
    """A task without input would only cost memory."""
    driver = driver_of(Echo(tasks=PARTITIONS + 1))
    with pytest.raises(ConfigError, match="its inputs have 4 partitions"):
        driver.run()


@pytest.mark.parametrize("declared", [None, PARTITIONS])
def test_format_1_is_continued_with_one_task_for_each_partition(declared: int | None) -> None:
    """Groups of earlier releases keep their journals."""
    echo = Echo(tasks=declared)
    driver = driver_of(echo)
    start_in_format_1(driver)
    for value in (1, 2):
        sent_to_each(driver, echo, value)
        driver.run()
        driver.restart(empty_disk=True)
    driver.run()
    assert values(driver, echo) == [1] * 4 + [2] * 4
    assert formats(driver) == {1}
    assert recorded_tasks(driver) == {0}


@pytest.mark.parametrize("tasks", [None, 1, PARTITIONS])
def test_a_new_group_writes_format_2(tasks: int | None) -> None:
    """Also one with a task for each partition: its states could be split later."""
    echo = Echo(tasks=tasks)
    driver = driver_of(echo)
    sent_to_each(driver, echo, 1)
    driver.run()
    assert formats(driver) == {2}
    assert recorded_tasks(driver) == {tasks or PARTITIONS}


def test_a_new_group_has_32_tasks_at_most() -> None:
    """Each task costs threads, connections and memory."""
    echo = Echo(tasks=None)
    driver = TestDriver(echo.app, partitions=40)
    driver.run()
    assert recorded_tasks(driver) == {32}


@pytest.mark.parametrize("tasks", [None, PARTITIONS])
def test_an_empty_journal_of_an_earlier_release_gets_format_2(tasks: int | None) -> None:
    """That release was killed before its genesis. Then the group has no history."""
    echo = Echo(tasks=tasks)
    driver = driver_of(echo)
    create_journal(driver, PARTITIONS)
    sent_to_each(driver, echo, 1)
    driver.run()
    assert values(driver, echo) == [1] * 4
    assert formats(driver) == {2}


def test_an_empty_journal_keeps_its_number_of_tasks() -> None:
    """Another worker may write its genesis at this moment."""
    echo = Echo(tasks=None)
    driver = driver_of(echo)
    create_journal(driver, 3)
    driver.run()
    assert recorded_tasks(driver) == {3}


def test_an_empty_journal_of_another_number_can_be_deleted() -> None:
    """There is nothing to migrate."""
    driver = driver_of(Echo(tasks=2))
    create_journal(driver, 3)
    with pytest.raises(ConfigError, match="tasks=2, and was started with 3") as refused:
        driver.run()
    assert "delete the empty topic echo.main.journal" in str(refused.value.hint)
    driver.broker.delete("echo.main.journal")
    driver.run()
    assert recorded_tasks(driver) == {2}


@pytest.mark.parametrize("empty", [False, True])
def test_fewer_partitions_than_tasks_are_refused(*, empty: bool) -> None:
    """The inputs were created again: some tasks would have none."""
    echo = Echo(tasks=PARTITIONS)
    driver = driver_of(echo)
    if empty:
        create_journal(driver, PARTITIONS)
    else:
        driver.run()
    driver.broker.delete("numbers")
    driver.broker.create(TopicSpec("numbers", 2))
    declared_app(echo.app).main.tasks = None
    driver.restart()
    with pytest.raises(ConfigError, match="has 4 partitions, its inputs only 2") as refused:
        driver.run()
    assert ("delete the empty topic" if empty else "topic-recreated") in str(refused.value.hint)


@pytest.mark.parametrize("group", [None, 2, 4])
def test_inputs_that_have_grown_are_refused_at_the_start(group: int | None) -> None:
    """Keys are in other partitions than their rows. `group`: its number of tasks; None: format 1."""
    echo = Echo(tasks=group)
    driver = driver_of(echo)
    if group is None:
        start_in_format_1(driver)
    driver.run()
    driver.restart()
    driver.broker.add_partitions("numbers", 4)
    with pytest.raises(ConfigError, match=r"numbers ha[ds] .* partitions") as refused:
        driver.run()
    assert "partitions-changed" in str(refused.value.hint)
    assert not driver.log_events("task_failed")  # no worker starts


def test_inputs_that_have_grown_cannot_be_reset() -> None:
    """Records of one key are in two partitions."""
    echo = Echo()
    driver = driver_of(echo)
    driver.run()
    driver.stop()
    driver.broker.add_partitions("numbers", 4)
    with pytest.raises(ConfigError, match="numbers had 4 partitions and has 8"):
        driver.reset("earliest")


def create_journal(driver: TestDriver, tasks: int) -> None:
    """The journal of a group whose first worker was killed before the genesis."""
    driver.broker.create(TopicSpec("echo.main.journal", tasks, 1, JOURNAL_CONFIG))


def formats(driver: TestDriver) -> set[int | None]:
    """The formats of all chunks in the journal."""
    return {format_of_chunk(record.value() or b"") for record in driver.broker.records("echo.main.journal")}


def recorded_tasks(driver: TestDriver) -> set[int]:
    """The number of tasks that each task has recorded: 0 in format 1."""
    (run,) = driver.worker.runs
    return {task.applied.identity.tasks for task in run.tasks.values()}  # type: ignore[attr-defined]

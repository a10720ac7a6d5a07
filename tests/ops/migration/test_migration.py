"""A migration in memory: what is said before and after it, and a whole one with crashes of copy and app."""

from __future__ import annotations

from collections import defaultdict

import pytest

from pipeline import App, Context, Event, Table, Topic
from pipeline.app import declared_app
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import ConfigError, FatalTaskError, InputError
from pipeline.ops.apps import groups_of, tasks_of
from pipeline.ops.migration.comparing import compare_histories, compare_last_values
from pipeline.ops.migration.copying import Copy, run_copy
from pipeline.ops.migration.migration import Migration, Survey, survey, unfinished
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime.restore import retirement
from pipeline.runtime.status import AppStatus, TaskPhase, read_status
from pipeline.testing import SimulatedCrash, TestDriver
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader

KEYS = [f"key-{number}" for number in range(12)]
MIGRATION = Migration("sums", "sums-2", {"numbers": "numbers-2"})


class Version:
    """Running totals and, behind them, the number of totals by key; under a name of its own."""

    def __init__(
        self,
        suffix: str,
        broker: MemoryBroker | None = None,
        partitions: int = 2,
        *,
        tasks: int | None = None,
        numbers: str | None = None,
    ) -> None:
        self.app = App(f"sums{suffix}")
        self.numbers: Topic[str, int] = self.app.topic(numbers or f"numbers{suffix}", key=str, value=int)
        self.totals: Topic[str, int] = self.app.topic(f"totals{suffix}", key=str, value=int)
        self.table: Table[str, int] = self.app.table("total", key=str, value=int)
        counting = self.app.group("counting")
        self.counts: Table[str, int] = counting.table("count", key=str, value=int)
        self.app.handler(self.numbers)(self._add)
        counting.handler(self.totals)(self._count)
        for group in declared_app(self.app).groups:
            group.tasks = tasks
        self.driver = TestDriver(self.app, partitions=partitions)
        if broker is not None:
            self.driver.broker = broker
            self.driver.create_topics()

    def _add(self, event: Event[str, int], ctx: Context) -> None:
        total = ctx.table(self.table).get(event.key, 0) + event.value
        ctx.table(self.table)[event.key] = total
        ctx.send(self.totals, event.key, total)

    def _count(self, event: Event[str, int], ctx: Context) -> None:
        ctx.table(self.counts)[event.key] = ctx.table(self.counts).get(event.key, 0) + 1


class Case:
    """An app with two partitions, and what its input was."""

    def __init__(self, *, partitions: int = 2, tasks: int | None = None) -> None:
        self.old = Version("", partitions=partitions, tasks=tasks)
        self.broker = self.old.driver.broker
        self.sent: dict[str, list[int]] = defaultdict(list)

    def send(self, topic: Topic[str, int], count: int) -> None:
        for number in range(count):
            key = KEYS[number * 7 % len(KEYS)]
            self.sent[key].append(number)
            self.old.driver.send(topic, key, number)

    def survey(self, migration: Migration = MIGRATION, *, incomplete: bool = False) -> Survey:
        cluster, reader = MemoryCluster(self.broker), MemoryJournalReader(self.broker)
        return survey(migration, cluster, reader, self.old.driver.clock, incomplete=incomplete)

    def problems(self, migration: Migration = MIGRATION, *, incomplete: bool = False) -> list[str]:
        return [problem.text for problem in self.survey(migration, incomplete=incomplete).problems]

    def copy(self) -> None:
        for copy in self.survey().copies:
            self._copy(copy)

    def copy_with_crashes(self, *steps: Step) -> None:
        for step in steps:
            self.old.driver.crash_at(step)
            with pytest.raises(SimulatedCrash):
                self.copy()
        self.copy()

    def _copy(self, copy: Copy) -> None:
        run_copy(copy, "test", self.old.driver.environment(), self.old.driver.settings, lambda _: None)

    def unfinished(self, migration: Migration = MIGRATION) -> list[str]:
        cluster, reader = MemoryCluster(self.broker), MemoryJournalReader(self.broker)
        surveyed = self.survey(migration, incomplete=True)
        return [problem.text for problem in unfinished(migration, surveyed, cluster, reader)]


@pytest.mark.parametrize(("before", "after"), [(None, None), (1, 2), (2, 5)])
def test_a_whole_migration_with_crashes_is_exact(before: int | None, after: int | None) -> None:
    """The input grew, the app stopped; in the end the new one has what a fold over all of the input gives.

    `before`, `after`: the numbers of tasks of both apps, whose inputs have 2 and 5 partitions.
    """
    case = Case(tasks=before)
    case.send(case.old.numbers, 40)
    case.old.driver.run()
    changed_ms = case.old.driver.clock.wall_ms()
    case.broker.add_partitions("numbers", 1)
    case.send(case.old.numbers, 40)  # producers do not stop
    case.old.driver.clock.advance(10)
    with pytest.raises(FatalTaskError, match="had 2 partitions and has 3"):
        case.old.driver.run()
    case.old.driver.crash()

    new = Version("-2", case.broker, partitions=5, tasks=after)
    assert case.unfinished()[0] == "1 worker of sums is alive"  # nobody has missed it yet
    case.old.driver.clock.advance(20)
    assert case.problems() == []
    (planned,) = case.survey().copies
    assert (planned.before, planned.old.partitions, planned.new.partitions) == (2, 3, 5)
    case.copy_with_crashes(Step.DURING_GENESIS, Step.AFTER_COMMIT, Step.AFTER_FLUSH)
    new.driver.crash_at(Step.AFTER_COMMIT, nth=3)
    new.driver.run()
    assert new.driver.crashed
    new.driver.restart(empty_disk=True)
    case.send(case.old.numbers, 20)
    assert any("numbers holds records that are not copied" in text for text in case.unfinished())
    case.copy_with_crashes(Step.BEFORE_APPLY)
    assert any("sums-2 has not processed all of" in text for text in case.unfinished())
    new.driver.run()
    assert case.unfinished() == []

    case.send(new.numbers, 30)  # from now on
    new.driver.run()
    assert new.driver.table(new.table) == {key: sum(values) for key, values in case.sent.items()}
    assert new.driver.table(new.counts) == {key: len(values) for key, values in case.sent.items()}
    outputs: dict[str, list[int]] = defaultdict(list)
    for event in new.driver.outputs(new.totals):
        outputs[event.key].append(event.value)
    for key, values in case.sent.items():
        assert outputs[key] == [sum(values[: n + 1]) for n in range(len(values))]
    old, both = case.broker.records("totals"), case.broker.records("totals-2")
    earlier = [record for record in old if record.timestamp()[1] < changed_ms]
    assert len(earlier) == 40
    compared = compare_histories(earlier, both)
    assert (compared.keys, compared.ahead, compared.differing) == (len(KEYS), len(KEYS), [])
    # The old worker may have committed records after the change, before it noticed it: wrong only for keys that moved.
    moved = {key.encode() for key in KEYS if partition_of(key.encode(), 2) != partition_of(key.encode(), 3)}
    assert moved.issuperset(compare_histories(old, both).differing)


@pytest.mark.parametrize(("before", "after"), [(None, 2), (2, 4), (4, 1)])
def test_an_app_moves_to_another_number_of_tasks_without_copies(before: int | None, after: int) -> None:
    """The number of tasks of a group never changes, but a new app can read the same input."""
    case = Case(partitions=4, tasks=before)
    case.send(case.old.numbers, 40)
    case.old.driver.run()
    migration = Migration("sums", "sums-2", {})
    assert case.problems(migration) == []
    assert case.survey(migration).copies == []
    new = Version("-2", case.broker, partitions=4, tasks=after, numbers="numbers")
    case.old.driver.stop()
    assert "app sums-2 has not started" in case.unfinished(migration)
    new.driver.run()
    case.old.driver.send(case.old.numbers, KEYS[0], 7)
    assert any("sums-2 has not processed all of numbers[" in text for text in case.unfinished(migration))
    new.driver.run()
    assert case.unfinished(migration) == []
    assert len(new.driver.worker.runs[0].tasks) == after
    expected = {key: sum(values) for key, values in case.sent.items()}
    expected[KEYS[0]] += 7
    assert new.driver.table(new.table) == expected


def test_inputs_without_their_first_records_cannot_be_read_again() -> None:
    """The tables of the new app would lack them, and nothing would say so."""
    case = Case(partitions=4, tasks=2)
    case.send(case.old.numbers, 40)
    case.old.driver.run()
    case.broker.truncate(TopicPartition("numbers", 3), 1)
    migration = Migration("sums", "sums-2", {})
    assert case.problems(migration) == ["numbers no longer holds its first records, in numbers[3]"]
    assert case.problems(migration, incomplete=True) == []
    assert case.problems(MIGRATION) != []  # there is no topic numbers-2


def test_the_switch_waits_forevery_stage_of_the_new_app() -> None:
    """A stage at the end of its input says nothing while the one before it still has work."""
    case = Case()
    case.send(case.old.numbers, 20)
    case.old.driver.run()
    case.old.driver.stop()
    new = Version("-2", case.broker)
    case.copy()
    assert case.unfinished() == ["app sums-2 has not started"]
    new.driver.crash_at(Step.AFTER_GENESIS, nth=2)
    new.driver.run()
    assert "app sums-2 does not read numbers-2" in case.unfinished()
    new.driver.restart()
    for _ in range(200):
        before = case.unfinished()
        done = len(new.driver.outputs(new.totals)) == 20 == sum(new.driver.table(new.counts).values())
        assert (before == []) <= done
        if not before:
            break
        new.driver.step()
        new.driver.clock.advance(0.05)
    assert before == []
    mistyped = Migration("sums", "sums-2", {"numbers": "numbers-2", "nubmers": "nubmers-2"})
    assert case.unfinished(mistyped)[0] == "there is no topic nubmers and no topic nubmers-2"


def test_living_workers_of_the_old_app_are_named() -> None:
    """Two apps that answer the same input are for a while what is wanted, and not at the end."""
    case = Case()
    Version("-2", case.broker)
    case.old.driver.run()
    assert case.unfinished()[0] == "1 worker of sums is alive"
    case.old.driver.stop()
    assert not any("alive" in text for text in case.unfinished())


def test_what_speaks_against_a_copy_is_said_before_anything_is_written() -> None:
    """Otherwise each problem would be found in the middle of the migration, or never."""
    case = Case()
    case.send(case.old.numbers, 20)
    case.old.driver.run()
    assert case.problems() == ["there is no topic numbers-2"]
    case.broker.create(TopicSpec("numbers-2", 5))
    assert case.problems() == []
    assert case.problems(Migration("sums", "sums-2", {"other": "numbers-2"})) == ["there is no topic other"]
    case.broker.create(TopicSpec("other", 5))
    assert case.problems(Migration("sums", "sums-2", {"other": "numbers-2"})) == [
        "app sums does not read other"
    ]
    with pytest.raises(InputError, match="this Kafka has no app summe"):
        case.survey(Migration("summe", "sums-2", {}))

    case.broker.truncate(TopicPartition("numbers", 0), 2)
    assert case.problems() == ["numbers no longer holds its first records, in numbers[0]"]
    assert case.problems(incomplete=True) == []
    case.broker.produce(Output("numbers-2", b"a", b"1", 1))
    assert "topic numbers-2 already holds records, in numbers-2[" in case.problems()[1]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"retention.ms": "1000"}, "with retention.ms 1000 Kafka would delete old records immediately"),
        ({"message.timestamp.type": "LogAppendTime"}, "records would lose their timestamps"),
        ({"max.message.bytes": "1000"}, "records may not fit"),
        ({"cleanup.policy": "compact"}, "records would be removed"),
    ],
)
def test_a_new_topic_that_would_not_keep_the_records_is_refused(config: dict[str, str], said: str) -> None:
    """The copy would be another topic than the one that was read."""
    case = Case()
    case.send(case.old.numbers, 20)
    case.old.driver.run()
    case.old.driver.clock.advance(60)
    case.broker.create(TopicSpec("numbers-2", 5, config=config))
    assert [said in text for text in case.problems()] == [True]


def test_inputs_of_one_group_must_fit_again() -> None:
    """A join that is copied by halves would be refused by the new app's first start, after all the copying."""
    join = App("join")
    left = join.topic("left", key=str, value=int)
    right = join.topic("right", key=str, value=int)
    for topic in (left, right):
        join.handler(topic)(lambda _event, _ctx: None)
    driver = TestDriver(join, partitions=2)
    driver.run()
    driver.broker.create(TopicSpec("left-2", 5))
    cluster, reader = MemoryCluster(driver.broker), MemoryJournalReader(driver.broker)
    found = survey(
        Migration("join", "join-2", {"left": "left-2"}), cluster, reader, driver.clock, incomplete=False
    )
    assert [problem.text for problem in found.problems] == [
        "group main would read topics with different numbers of partitions: left-2 has 5, right has 2"
    ]


def test_a_grown_topic_that_is_not_copied_is_noted() -> None:
    """Between groups that is right, since the new app writes another one; elsewhere it was forgotten."""
    case = Case()
    case.send(case.old.numbers, 20)
    case.old.driver.run()
    case.broker.create(TopicSpec("numbers-2", 5))
    case.broker.add_partitions("totals", 1)
    (note,) = case.survey().notes
    assert note.startswith("totals had 2 partitions and now has 3, and is not copied")


@pytest.mark.parametrize(
    ("old", "new", "topics"),
    [
        ("a", "a", {"x": "y"}),
        ("a", "b", {"x": "x"}),
        ("a", "b", {"x": "z", "y": "z"}),
        ("a", "b", {"x": "a.main.journal"}),
    ],
)
def test_names_that_would_mix_old_and_new_are_refused(old: str, new: str, topics: dict[str, str]) -> None:
    """Each of them would damage what is to be kept."""
    with pytest.raises(InputError):
        Migration(old, new, topics)


def test_histories_agree_up_to_where_the_old_one_ends() -> None:
    """An app that stopped early is no reason for doubt; another value, order or number of values is."""
    broker = MemoryBroker()
    for topic in ("old", "new"):
        broker.create(TopicSpec(topic, 1))

    def write(topic: str, *pairs: tuple[bytes | None, bytes | None]) -> None:
        broker.produce(*(Output(topic, key, value, 1) for key, value in pairs))

    write("old", (b"same", b"1"), (b"swapped", b"1"), (b"swapped", b"2"), (b"gone", b"1"), (b"none", None))
    write("new", (b"swapped", b"2"), (b"swapped", b"1"), (b"same", b"1"), (b"same", b"2"), (b"none", b""))
    write("new", (b"more", b"1"), (None, b"1"))
    found = compare_histories(broker.records("old"), broker.records("new"))
    assert found.keys == 4
    assert found.ahead == 2
    assert found.differing == [b"gone", b"none", b"swapped"]
    last = compare_last_values(broker.records("old"), broker.records("new"))
    assert last.differing == [b"gone", b"more", b"none", b"same", b"swapped"]


def retire(case: Case) -> int:
    driver = case.old.driver
    tasks = tasks_of(groups_of("sums", MemoryCluster(case.broker)))
    return len(retirement.retire(tasks, "sums-2", "test", driver.environment(), driver.settings))


def revive(case: Case) -> int:
    driver = case.old.driver
    tasks = tasks_of(groups_of("sums", MemoryCluster(case.broker)))
    return len(retirement.revive(tasks, "test", driver.environment(), driver.settings))


def status_of(case: Case) -> AppStatus:
    cluster, reader = MemoryCluster(case.broker), MemoryJournalReader(case.broker)
    return read_status("sums", cluster, reader, case.old.driver.clock.wall_ms())


def run_before() -> Case:
    """An app that has been at work, and is stopped."""
    case = Case()
    case.send(case.old.numbers, 40)
    case.old.driver.run()
    case.old.driver.stop()
    case.old.driver.clock.advance(20)
    return case


def test_a_worker_of_a_retired_app_is_refused_and_writes_nothing() -> None:
    """If it was started by mistake, it would process the old inputs, and readers would see two results."""
    case = run_before()
    before = len(case.old.driver.outputs(case.old.totals))
    assert retire(case) == 4
    assert {task.phase for task in status_of(case).tasks} == {TaskPhase.RETIRED}
    assert status_of(case).problems == []
    case.send(case.old.numbers, 5)
    for empty_disk in (False, True):
        case.old.driver.restart(empty_disk=empty_disk)
        with pytest.raises(
            ConfigError, match=r"sums was retired at 20.* UTC: app sums-2 has taken its place"
        ) as no:
            case.old.driver.run()
        assert "pipeline migrate revive sums" in (no.value.hint or "")
        case.old.driver.crash()
        with pytest.raises(ConfigError, match="was retired"):
            case.old.driver.reset()
    assert len(case.old.driver.outputs(case.old.totals)) == before
    assert retire(case) == 0  # once is enough


@pytest.mark.parametrize("tasks", [None, 1])
def test_a_retired_app_is_refused_as_such_after_its_input_grew(tasks: int | None) -> None:
    """The error about the input names the runbook of the migration, which has been followed already."""
    case = run_before()
    case.broker.add_partitions("numbers", 1 if tasks is None else 0)
    declared_app(case.old.app).main.tasks = tasks
    retire(case)
    case.old.driver.restart()
    with pytest.raises(ConfigError, match="was retired"):
        case.old.driver.run()


def test_a_task_that_is_retired_under_a_worker_is_not_run_any_more() -> None:
    """The fence ends it, and what it then finds in its journal."""
    case = Case()
    case.send(case.old.numbers, 40)
    case.old.driver.run()
    driver = case.old.driver
    tasks = [TaskId("sums", "main", 1)]
    retirement.retire(tasks, "sums-2", "test", driver.environment(), driver.settings)
    before = len(driver.outputs(case.old.totals))
    case.send(case.old.numbers, 40)
    driver.clock.advance(10)
    with pytest.raises(ConfigError, match="was retired"):
        driver.run()
    assert set(driver.failures) == {("main", 1)}
    written = driver.outputs(case.old.totals)
    assert len(written) > before  # the other task goes on
    assert "1 of 4 tasks is retired, and the others are not" in [p.text for p in status_of(case).problems]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_retirement_that_was_killed_leaves_the_app_retired_or_as_it_was(nth: int) -> None:
    """If only some journals are marked, the app is retired: no worker runs the other tasks."""
    case = run_before()
    driver = case.old.driver
    driver.crash_at(Step.AFTER_COMMIT, nth=nth)
    with pytest.raises(SimulatedCrash):
        retire(case)
    before = len(driver.outputs(case.old.totals))
    case.send(case.old.numbers, 20)
    driver.restart()
    with pytest.raises(ConfigError, match="was retired"):
        driver.run()
    assert len(driver.outputs(case.old.totals)) == before
    driver.crash()
    retire(case)
    assert {task.phase for task in status_of(case).tasks} == {TaskPhase.RETIRED}
    driver.crash_at(Step.AFTER_COMMIT, nth=nth)
    with pytest.raises(SimulatedCrash):
        revive(case)
    driver.restart()
    revive(case)
    driver.run()


def test_a_revived_app_continues_from_where_it_was() -> None:
    """The switch may have been a mistake, too: nothing of the old app is gone."""
    case = run_before()
    retire(case)
    assert revive(case) == 4
    assert revive(case) == 0
    case.send(case.old.numbers, 20)
    case.old.driver.restart()
    case.old.driver.run()
    assert case.old.driver.table(case.old.table) == {key: sum(values) for key, values in case.sent.items()}
    assert [said["restored_from"] for said in case.old.driver.log_events("task_live")][-4:] == [
        "local state"
    ] * 4

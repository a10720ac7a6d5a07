"""The move of an application from Faust, in memory: positions and tables together, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count as numbers
from typing import Any

import faust
import pytest

from pipeline.app import declared_app
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import ConfigError, InputError, UnknownOutcomeError
from pipeline.faust import migration
from pipeline.faust.migration import move, moved_from, start_fresh, survey
from pipeline.ports import Output, Step, TopicSpec
from pipeline.runtime.created_topics import create_new_topics
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.testing import TestDriver
from pipeline.testing.memory_clients import MemoryCluster

PARTITIONS = 4
_numbers: Iterator[int] = numbers()


class _CrashError(Exception):
    """The end of a process at a step."""


class CrashAt:
    """`ports.Steps` that ends the process at a step."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def reached(self, step: Step, task: TaskId) -> None:
        if step is self._step:
            raise _CrashError


class Shop:
    """An application that adds up orders, with what Faust has left in Kafka after half of them."""

    def __init__(self, tasks: int | None = None, **options: Any) -> None:
        self.app = app = faust.App(f"shop-{next(_numbers)}", topic_partitions=PARTITIONS, **options)
        self.orders = app.topic("orders", key_type=str, value_type=int)
        self.sums = app.topic("sums", key_type=str, value_type=int)
        totals = self.totals = app.Table("totals", key_type=str, value_type=int, default=int)
        seen = self.seen = app.SetTable("seen", key_type=str, value_type=int)
        sums = self.sums

        @app.agent(self.orders)
        async def add(stream: Any) -> None:
            async for key, cents in stream.items():
                totals[key] += cents
                seen[key].add(cents)
                await sums.send(key=key, value=totals[key])

        self.driver = TestDriver(app, partitions=PARTITIONS, tasks=tasks)
        self.broker = self.driver.broker
        self.declared = declared_app(app)
        self.expected: dict[str, list[int]] = {}
        self.committed: dict[TopicPartition, int] = {}
        for name in ("orders", "sums", *self.changelogs):
            if name not in self.broker.topics():
                self.broker.create(TopicSpec(name, PARTITIONS, 1, {}))
        self.send(40)
        self._as_faust_leaves_it()

    @property
    def changelogs(self) -> list[str]:
        return [table.changelog_topic.get_topic_name() for table in (self.totals, self.seen)]

    def send(self, count: int) -> None:
        for number in range(count):
            key, cents = f"c{number % 7}", number
            before = self.expected.setdefault(key, [])
            before.append((before[-1] if before else 0) + cents)
            self.broker.produce(Output("orders", key.encode(), str(cents).encode(), 0))

    def _as_faust_leaves_it(self) -> None:
        """Committed offsets, and a changelog record for each write, as Faust encodes them."""
        for record in self.broker.records("orders"):
            key, cents = (record.key() or b"").decode(), int(record.value() or b"")
            self._changed(self.totals, key, self._total(key, cents), record.partition())
            self._changed(self.seen, (1, key), cents, record.partition())
            self.committed[TopicPartition("orders", record.partition())] = record.offset() + 1
        self.broker.commit_offsets(self.app.conf.id, self.committed)

    def _total(self, key: str, cents: int) -> int:
        known: dict[str, int] = vars(self).setdefault("_totals", {})
        known[key] = known.get(key, 0) + cents
        return known[key]

    def _changed(self, table: Any, key: Any, value: Any, partition: int) -> None:
        schema = table.changelog_topic.schema
        data, _ = schema.dumps_key(self.app, key, serializer=table.key_serializer, headers={})
        stored, _ = schema.dumps_value(self.app, value, serializer=table.value_serializer, headers={})
        name = table.changelog_topic.get_topic_name()
        self.broker.produce(Output(name, data, stored, 0), partition=partition)

    def environment(self, step: Step | None = None) -> Environment:
        found = self.driver.environment()
        return found if step is None else replace(found, steps=CrashAt(step))

    def plan(self) -> GroupPlan:
        environment = self.environment()
        create_new_topics(self.declared, environment)
        plans, _ = plan_groups(self.driver._declared, self.driver._declared.groups, environment)
        return plans[0]

    def move(self, step: Step | None = None) -> migration.Moved:
        environment = self.environment(step)
        return move(survey(self.declared, environment), self.plan(), environment, self.driver.settings)

    def check(self) -> None:
        """The outputs of all records after Faust's, exactly once, and totals over all records."""
        already = {key: self.expected[key][:count] for key, count in self._processed_by_faust().items()}
        got: dict[str, list[int]] = {}
        for event in self.driver.outputs(self.sums):
            got.setdefault(event.key, []).append(event.value)
        assert {key: already.get(key, []) + got.get(key, []) for key in self.expected} == self.expected
        assert self.driver.table(self.totals) == {key: sums[-1] for key, sums in self.expected.items()}

    def _processed_by_faust(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for record in self.broker.records("orders"):
            place = TopicPartition("orders", record.partition())
            if record.offset() < self.committed.get(place, 0):
                key = (record.key() or b"").decode()
                found[key] = found.get(key, 0) + 1
        return found


@pytest.mark.parametrize("tasks", [PARTITIONS, 2, 1])
def test_an_application_continues_where_faust_was(tasks: int) -> None:
    """Each record is processed once: by Faust, or here, on the tables that Faust has left."""
    shop = Shop(tasks)
    shop.send(30)
    moved = shop.move()
    assert moved.rows == {"totals": 7, "seen": 7}
    assert moved.tasks == tasks
    shop.driver.run()
    shop.check()
    assert shop.driver.table(shop.seen)["c1"] == set(range(1, 40, 7)) | set(range(1, 30, 7))

    shop.driver.restart(empty_disk=True)
    shop.send(20)
    shop.driver.run()
    shop.check()


def test_a_large_table_is_moved_in_several_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of a whole table would have to be in memory in each restore."""
    monkeypatch.setattr(migration, "_ENTRY_BYTES", 10)
    shop = Shop()
    shop.move()
    shop.send(30)
    shop.driver.run()
    shop.check()
    journal = shop.broker.records(f"{shop.declared.name}.main.journal")
    assert len(journal) > 2 * PARTITIONS


@pytest.mark.parametrize("step", [Step.BEFORE_GENESIS, Step.DURING_GENESIS, Step.AFTER_GENESIS])
def test_a_crash_leaves_nothing_or_everything(step: Step) -> None:
    """The next run begins again, or says that it is done."""
    shop = Shop()
    shop.send(30)
    with pytest.raises(_CrashError):
        shop.move(step)
    group = shop.declared.groups[0].id
    if step is Step.AFTER_GENESIS:
        assert moved_from(group, shop.environment()) == shop.app.conf.id
    else:
        assert moved_from(group, shop.environment()) is None
        with pytest.raises(ConfigError, match="has run as another program"):
            shop.driver.run()
        shop.move()
    shop.driver.run()
    shop.check()


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_whose_outcome_is_unknown_is_found_out(happened: bool) -> None:
    """The answer was lost; the state must not be moved twice, or not at all."""
    shop = Shop()
    unknown = UnknownOutcomeError("no answer")
    shop.broker.fail_next("commit", unknown, after=happened, where=f"{shop.declared.name}.main.genesis")
    shop.move()
    shop.send(30)
    shop.driver.run()
    shop.check()


def test_a_worker_refuses_an_application_that_was_not_moved() -> None:
    """It would process everything again, with empty tables."""
    shop = Shop()
    with pytest.raises(ConfigError, match="has run as another program") as refused:
        shop.driver.run()
    assert "pipeline faust migrate" in str(refused.value.hint)


def test_an_application_can_start_without_the_state_of_faust() -> None:
    """The choice is the user's, and must be made by name."""
    shop = Shop()
    start_fresh(shop.plan(), shop.environment(), shop.driver.settings)
    shop.committed = {}
    shop.driver.run()
    shop.check()
    assert moved_from(shop.declared.groups[0].id, shop.environment()) == ""


def test_an_application_that_never_ran_on_faust_starts() -> None:
    """No step is needed for a new application."""
    shop = Shop()
    shop.broker.forget_offsets(shop.app.conf.id)
    shop.committed = {}
    shop.driver.run()
    shop.check()


def test_a_group_that_has_started_is_not_moved_into() -> None:
    """Its own state would be mixed with that of Faust."""
    shop = Shop()
    start_fresh(shop.plan(), shop.environment(), shop.driver.settings)
    with pytest.raises(InputError, match="has started with empty tables"):
        shop.move()


def test_nothing_is_moved_while_faust_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would process the same records as this engine."""
    shop = Shop()
    monkeypatch.setattr(MemoryCluster, "member_ids", lambda *_: ["faust-0.15.3"])
    surveyed = survey(shop.declared, shop.environment())
    assert "has 1 member: faust-0.15.3" in surveyed.problems[0].text
    with pytest.raises(InputError, match="has 1 member"):
        move(surveyed, shop.plan(), shop.environment(), shop.driver.settings)


def _more_changes(shop: Shop) -> None:
    shop._changed(shop.totals, "c1", 999, 0)


def _more_commits(shop: Shop) -> None:
    place = next(iter(shop.committed))
    shop.broker.commit_offsets(shop.app.conf.id, {place: shop.committed[place] - 1})


@pytest.mark.parametrize("runs", [_more_changes, _more_commits])
def test_a_worker_of_faust_that_runs_meanwhile_is_noticed(runs: Callable[[Shop], None]) -> None:
    """Positions and rows that were read at different times do not belong together."""
    shop = Shop()
    environment = shop.environment()
    surveyed = survey(shop.declared, environment)
    runs(shop)
    with pytest.raises(ConfigError, match=r"Faust has run during the migration: .* Nothing was moved"):
        move(surveyed, shop.plan(), environment, shop.driver.settings)
    assert moved_from(shop.declared.groups[0].id, environment) is None


def test_an_application_without_positions_has_nothing_to_move() -> None:
    """Most likely the cluster or the id is another one."""
    shop = Shop()
    shop.broker.forget_offsets(shop.app.conf.id)
    surveyed = survey(shop.declared, shop.environment())
    assert "has no positions in the inputs: orders" in surveyed.problems[0].text


@pytest.mark.parametrize(("reset", "first"), [("earliest", True), ("latest", False)])
def test_a_partition_without_a_position_starts_as_in_faust(reset: str, first: bool) -> None:
    """Faust commits a partition only when it has processed a record of it."""
    shop = Shop(consumer_auto_offset_reset=reset)
    lost, *rest = sorted(shop.committed)
    shop.broker.forget_offsets(shop.app.conf.id)
    shop.broker.commit_offsets(shop.app.conf.id, {place: shop.committed[place] for place in rest})
    found = {each.place: each for each in survey(shop.declared, shop.environment()).positions}
    assert found[lost].committed is None
    assert found[lost].position == (0 if first else found[lost].end)


def test_records_that_retention_has_deleted_are_named() -> None:
    """They cannot be processed: the application continues after them, as Faust would."""
    shop = Shop()
    place = TopicPartition("orders", partition_of(b"c1", PARTITIONS))
    shop.broker.commit_offsets(shop.app.conf.id, {place: 1})
    shop.broker.truncate(place, 3)
    surveyed = survey(shop.declared, shop.environment())
    assert f"{place}: retention has deleted the offsets 1 to 2" in surveyed.notes[0]
    assert next(each for each in surveyed.positions if each.place == place).position == 3


def test_a_position_behind_the_end_of_a_topic_is_refused() -> None:
    """The topic was created again, so the position is one of other records."""
    shop = Shop()
    place = TopicPartition("orders", 0)
    shop.broker.commit_offsets(shop.app.conf.id, {place: 1_000})
    problem = survey(shop.declared, shop.environment()).problems[0]
    assert "and Faust has committed 1000" in problem.text


def test_a_changelog_with_other_partitions_is_refused() -> None:
    """Its rows are not in the partitions of their events."""
    shop = Shop()
    name = shop.changelogs[0]
    shop.broker.add_partitions(name, 1)
    problem = survey(shop.declared, shop.environment()).problems[0]
    assert f"changelog {name} has 5 partitions, the inputs 4" in problem.text


def test_a_table_without_a_changelog_starts_empty() -> None:
    """It was added to the application after its last run on Faust."""
    shop = Shop()
    shop.broker.delete(shop.changelogs[1])
    surveyed = survey(shop.declared, shop.environment())
    assert surveyed.problems == []
    assert f"has no changelog {shop.changelogs[1]}: it starts empty" in surveyed.notes[0]


def test_a_row_that_cannot_be_read_is_named_and_nothing_is_moved() -> None:
    """The declared types are not those that the table was written with."""
    shop = Shop()
    shop.broker.produce(Output(shop.changelogs[0], b'"c1"', b'"text"', 0), partition=2)
    with pytest.raises(
        ConfigError, match=r"-totals-changelog\[2\]@\d+ is not a row of table totals: ValueError"
    ):
        shop.move()
    assert moved_from(shop.declared.groups[0].id, shop.environment()) is None

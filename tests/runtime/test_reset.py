"""Reset in memory: a state forgotten on purpose, and its input handled again, exactly."""

from __future__ import annotations

from typing import Any

import pytest

import pipeline.runtime.reset
from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.errors import ConfigError, FatalTaskError, InputError
from pipeline.ports import Step
from pipeline.runtime.reset import plan_reset, start_at
from pipeline.testing import TestDriver
from tests.support.runtime.steps import COMMIT_STEPS


class Counting:
    """Counts per key, two partitions; the second version of the app counts in tens."""

    def __init__(self, *, by: int = 1, value: type = int, partitions: int = 2) -> None:
        self.app = App("counting")
        self.words = self.app.topic("words", key=str, value=str)
        self.sums = self.app.topic("sums", key=str, value=int)
        self.counts: Any = self.app.table("counts", key=str, value=value)
        self.driver = TestDriver(self.app, partitions=partitions)

        @self.app.handler(self.words)
        def count(event: Event[str, str], ctx: Context) -> None:
            table = ctx.table(self.counts)
            table[event.key] = value(int(table.get(event.key, value(0))) + by)
            ctx.send(self.sums, event.key, int(table[event.key]))

    def send(self, *keys: str) -> None:
        for key in keys:
            self.driver.send(self.words, key, "x")

    def sent(self, key: str) -> list[int]:
        return [event.value for event in self.driver.outputs(self.sums) if event.key == key]


def test_a_worker_that_stops_before_it_has_noticed_a_reset_has_not_failed() -> None:
    """Other workers have its tasks by then, and no data is lost: exit code 1 would cause a false alert."""
    app = Counting()
    app.send("a", "b")
    app.driver.run()
    app.driver.reset()
    app.driver.stop()
    assert len(app.driver.log_events("task_owned_by_other_worker")) == 2
    app.driver.restart()
    app.driver.run()
    assert app.sent("a") == [1, 1]


def test_a_reset_forgets_the_state_and_handles_the_input_again() -> None:
    """Outputs of the records from there on are produced once more; that is what a reset is for."""
    app = Counting()
    app.send("a", "a", "b")
    app.driver.run()
    app.driver.reset()
    app.driver.run()
    app.send("a")
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 3, "b": 1}
    assert app.sent("a") == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("how", ["running", "stopped", "crashed", "empty disk"])
def test_a_reset_reaches_the_worker_wherever_its_state_is(how: str) -> None:
    """A running worker restores by itself; a stopped one finds the entry; an empty disk replays past it."""
    app = Counting()
    app.send("a", "a", "b")
    app.driver.run()
    if how == "stopped":
        app.driver.stop()
    elif how == "crashed":
        app.driver.crash()
    app.driver.reset("latest")
    if how in {"crashed", "empty disk"}:
        app.driver.restart(empty_disk=how == "empty disk")
    app.send("a")
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 1}
    assert app.sent("a") == [1, 2, 1]


def test_one_task_is_reset_and_the_others_keep_their_state() -> None:
    """A task is the unit that fails, and the unit that is started over."""
    app = Counting()
    app.send(*"abcdefgh")
    app.driver.run()
    rows = app.driver.table_by_partition(app.counts)
    app.driver.reset("latest", partition=0)
    app.driver.run()
    assert app.driver.table_by_partition(app.counts) == {0: {}, 1: rows[1]}


def test_a_reset_begins_at_an_offset_or_a_time() -> None:
    """From a known good place on, instead of everything."""
    app = Counting(partitions=1)
    for number in range(5):
        app.driver.send(app.words, "a", "x", timestamp_ms=1_000_000 * number)
    app.driver.run()
    app.driver.reset("words=3")
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 2}
    app.driver.reset("1970-01-01T00:16:41Z")  # 1,001 s: the record at 2,000 s is the first after it
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 3}
    app.driver.reset("1970-01-02T00:00:00Z")
    app.driver.run()
    assert app.driver.table(app.counts) == {}


@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_a_crash_in_a_reset_leaves_the_task_as_it_was_or_reset(step: Step) -> None:
    """The entry is one commit: there is nothing in between, and the reset can be repeated."""
    app = Counting(partitions=1)
    app.send("a", "a")
    app.driver.run()
    app.driver.crash_at(step)
    with pytest.raises(BaseException, match=step.value):
        app.driver.reset()
    app.driver.restart()
    app.driver.run()
    done = step in {Step.AFTER_COMMIT, Step.BEFORE_APPLY, Step.AFTER_APPLY}
    assert app.sent("a") == ([1, 2, 1, 2] if done else [1, 2])
    assert app.driver.table(app.counts) == {"a": 2}
    app.driver.reset("latest")
    app.driver.run()
    assert app.driver.table(app.counts) == {}


def test_a_reset_is_the_way_past_a_schema_that_does_not_fit() -> None:
    """The new version is refused; after a reset by the new version it runs."""
    app = Counting()
    app.send("a", "a")
    app.driver.run()
    changed = Counting(value=float)
    app.driver.restart(app=changed.app)
    with pytest.raises(ConfigError, match="schema of table counts changed") as caught:
        app.driver.run()
    assert "pipeline reset" in (caught.value.hint or "")
    app.driver.restart()
    app.driver.reset()
    app.driver.run()
    assert app.driver.table(changed.counts) == {"a": 2.0}


def test_a_reset_is_the_way_past_a_recreated_topic() -> None:
    """Positions in the old topic mean nothing; a reset gives the task new ones."""
    app = Counting()
    app.send("a", "a")
    app.driver.run()
    app.driver.stop()
    app.driver.recreate(app.words)
    app.send("a")
    app.driver.reset()
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 1}


@pytest.mark.parametrize(("start", "counts"), [("earliest", (None, 0, 0, 0)), ("latest", (None, 3, 0, 3))])
def test_a_plan_does_not_count_from_positions_in_an_old_topic(
    start: str, counts: tuple[int | None, int, int, int]
) -> None:
    """An operator decides by these counts; the old topic's records can neither be reprocessed nor skipped."""
    app = Counting(partitions=1)
    app.send("a", "a")
    app.driver.run()
    app.driver.stop()
    app.driver.recreate(app.words)
    app.send("a", "a", "a")
    declared = declared_app(app.app)
    [planned] = plan_reset(declared, declared.groups, None, start_at([start]), app.driver.environment())
    [words] = planned.inputs
    assert (words.position, words.start, words.again, words.skipped) == counts


@pytest.mark.parametrize("identities", [1, 0])
def test_without_a_recent_acquire_a_plan_compares_with_the_end(
    identities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of a worker that has run for a year is not read to its start."""
    app = Counting(partitions=1)
    app.send("a")
    app.driver.run()
    for _ in range(3):
        app.send("a")
        app.driver.run()
    monkeypatch.setattr(pipeline.runtime.reset, "IDENTITY_SEARCH", (1, 100) if identities else (1,))
    declared = declared_app(app.app)

    def position() -> int | None:
        [planned] = plan_reset(
            declared, declared.groups, None, start_at(["earliest"]), app.driver.environment()
        )
        return planned.inputs[0].position

    assert position() == 4
    app.driver.recreate(app.words)
    assert position() is None


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("9", "words[0] has the offsets 0 to 2, and not 9"),
        ("yesterday", "'yesterday' is not a start position"),
        ("2026-01-31T00:00:00", "has no time zone"),
        ("other=earliest", "there is no start position for topic words"),
    ],
)
def test_a_place_that_is_none_is_refused_before_anything_is_fenced(start: str, text: str) -> None:
    """A typing error must not cost a state."""
    app = Counting(partitions=1)
    app.send("a", "a")
    app.driver.run()
    with pytest.raises(InputError) as caught:
        app.driver.reset(start)
    assert text in str(caught.value)
    assert caught.value.hint
    app.driver.run()
    assert app.driver.table(app.counts) == {"a": 2}


def test_a_partition_that_does_not_exist_is_refused_with_those_that_do() -> None:
    """A typing error must not end without the next step."""
    app = Counting()
    app.send("a")
    app.driver.run()
    with pytest.raises(InputError, match="have no partition 9") as caught:
        app.driver.reset(partition=9)
    assert "their partitions are 0 to 1" in (caught.value.hint or "")


def test_a_group_without_a_journal_cannot_be_reset() -> None:
    """There is nothing to fence, and nothing to say where it stood."""
    app = Counting()
    with pytest.raises(FatalTaskError, match="has no journal") as caught:
        app.driver.reset()
    assert "start a worker" in (caught.value.hint or "")

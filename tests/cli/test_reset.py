"""What `pipeline reset` says before it asks."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner, Result

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.cli.main import assemble
from pipeline.cli.reset import _consequences, _document, _named, _print_plan, _rows
from pipeline.errors import InputError
from pipeline.runtime.reset import TaskReset, plan_reset, start_at
from pipeline.testing import TestDriver
from tests.support.ops.dead_letters.orders import Orders
from tests.support.runtime.several import PARTITIONS, Several


def _said(orders: Orders, start: str) -> str:
    environment = orders.driver.environment()
    groups = declared_app(orders.app).groups
    return _consequences(
        list(plan_reset(declared_app(orders.app), groups, None, start_at([start]), environment))
    )


def test_a_reset_that_handles_records_again_warns_of_their_dead_letters() -> None:
    """If the operator replayed them later, they would count twice."""
    orders = Orders()
    orders.bad = {3}
    orders.send(1, 2, 3)
    orders.driver.run()
    assert "kept: the dead letters of these records" in _said(orders, "earliest")
    assert "dead letters" not in _said(orders, "latest")


def test_a_reset_of_a_group_without_dead_letters_does_not_speak_of_them() -> None:
    """A warning without a reason would make users ignore warnings."""
    orders = Orders(on_error="skip")
    orders.send(1, 2, 3)
    orders.driver.run()
    assert "dead letters" not in _said(orders, "earliest")


def test_inputs_that_nothing_happens_to_are_left_out() -> None:
    """Half of the rows were topics of replays that stay where they are."""
    orders = Orders()
    orders.send(1, 2, 3)
    orders.driver.run()
    declared = declared_app(orders.app)
    planned = list(
        plan_reset(
            declared,
            declared.groups,
            None,
            start_at(["earliest"]),
            orders.driver.environment(),
        )
    )
    assert len(planned[0].inputs) == 2
    assert list(_rows(planned)) == [
        ["main/0", "amounts", 0, 1, 0, 1, 0],
        ["main/1", "amounts", 1, 2, 0, 2, 0],
    ]
    still = list(
        plan_reset(
            declared,
            declared.groups,
            None,
            start_at(["latest"]),
            orders.driver.environment(),
        )
    )
    assert [row[0] for row in _rows(still)] == [
        "main/0",
        "main/1",
    ]  # the rows of its tables are forgotten all the same


def test_a_topic_that_was_created_again_has_no_position() -> None:
    """Counts from the old topic's positions would promise that its records are processed again."""
    orders = Orders()
    orders.send(1, 2, 3)
    orders.driver.run()
    orders.driver.stop()
    orders.driver.recreate(orders.amounts)
    declared = declared_app(orders.app)
    environment = orders.driver.environment()
    planned = list(plan_reset(declared, declared.groups, None, start_at(["earliest"]), environment))
    assert list(_rows(planned)) == [
        ["main/0", "amounts", 0, None, 0, 0, 0],
        ["main/1", "amounts", 1, None, 0, 0, 0],
    ]
    said = _consequences(planned)
    assert "produced again" not in said
    assert "read for the first time, from the new position: amounts" in said


def _planned(several: Several, partition: int | None = None) -> list[TaskReset]:
    declared, environment = declared_app(several.app), several.driver.environment()
    return list(plan_reset(declared, declared.groups, None, start_at(["earliest"]), environment, partition))


def test_a_reset_of_one_partition_names_only_what_it_changes() -> None:
    """The other partitions of its task keep their rows, and the operator must see that."""
    several = Several.begun()
    (planned,) = _planned(several, partition=4)
    assert list(_rows([planned])) == [["main/0", "numbers", 4, 1, 0, 1, 0]]
    assert "deleted: all rows of main.counts in partition 4" in _consequences([planned])
    assert _named([planned]) == "partition 4 of 1 task"
    document = _document(planned, dry_run=True)
    assert (document["task"], document["partitions"]) == (0, [4])
    assert [each["partition"] for each in document["inputs"]] == [4, 4]  # type: ignore[attr-defined]


def test_a_reset_of_tasks_shows_each_of_their_partitions(capsys: pytest.CaptureFixture[str]) -> None:
    """Several rows of one topic would look like a mistake without their partitions."""
    planned = _planned(Several.begun())
    assert [row[:3] for row in _rows(planned)] == [
        [f"main/{p % 2}", "numbers", p] for p in (0, 2, 4, 1, 3, 5)
    ]
    assert [_document(each, dry_run=True)["partitions"] for each in planned] == [[0, 2, 4], [1, 3, 5]]
    assert _named(planned) == "2 tasks"
    _print_plan(planned)
    assert "partition" in capsys.readouterr().out
    _print_plan(_planned(Several.begun(tasks=None)))
    assert "partition" not in capsys.readouterr().out


@pytest.mark.parametrize("tasks", [2, 6, None])
def test_a_partition_is_reset_with_any_number_of_tasks(tasks: int | None) -> None:
    """A runbook can name the partition of a record without the number of tasks."""
    several = Several.begun(tasks=tasks)
    (planned,) = _planned(several, partition=5)
    assert planned.task == several.task(5 % (tasks or PARTITIONS))
    assert planned.partitions == [5]
    with pytest.raises(InputError, match="the inputs of group several/main have no partition 6"):
        _planned(several, partition=PARTITIONS)


def test_a_number_that_is_only_a_partition_is_explained() -> None:
    """With one task for each partition, the numbers were the same."""
    several = Several.begun()
    declared, environment = declared_app(several.app), several.driver.environment()
    with pytest.raises(InputError, match="several/main has no task 4") as refused:
        list(plan_reset(declared, declared.groups, 4, start_at(["earliest"]), environment))
    assert refused.value.hint == "its tasks are 0 to 1. For partition 4 of its inputs: --partition 4"


class _Stages:
    """Two groups: the first one reads orders and writes checked, the second one reads checked and writes totals."""

    def __init__(self) -> None:
        self.app = app = App("stages", tasks=2)
        orders = app.topic("orders", key=str, value=int)
        checked = app.topic("checked", key=str, value=int)
        totals = app.topic("totals", key=str, value=int)

        @app.handler(orders)
        def check(event: Event[str, int], ctx: Context) -> None:
            ctx.send(checked, event.key, event.value)

        @app.group("sums").handler(checked)
        def add(event: Event[str, int], ctx: Context) -> None:
            ctx.send(totals, event.key, event.value)

        self.driver = TestDriver(app)
        self.driver.send(orders, "a", 1)
        self.driver.run()

    def said(self, start: str, *groups: str) -> str:
        declared = declared_app(self.app)
        chosen = [group for group in declared.groups if group.name in groups]
        return _consequences(
            list(plan_reset(declared, chosen, None, start_at([start]), self.driver.environment()))
        )


def test_a_reset_names_the_topics_that_its_groups_write_and_their_readers() -> None:
    """An input would look as if its records were produced a second time."""
    stages = _Stages()
    warning = "warning: group sums reads checked, and handles these outputs again"
    both = stages.said("earliest", "main", "sums")
    assert "for the reprocessed records, to checked, totals\n" in both
    assert warning in both
    first = stages.said("earliest", "main")
    assert "for the reprocessed records, to checked\n" in first
    assert warning in first
    assert "warning" not in stages.said("earliest", "sums")
    assert "warning" not in stages.said("latest", "main")


def _ran(several: Several, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The command, on the driver's memory instead of a Kafka."""
    module = sys.modules["pipeline.cli.reset"]
    monkeypatch.setattr(module, "find_app", lambda _target: declared_app(several.app))
    monkeypatch.setattr(module, "build_environment", lambda *_, **__: several.driver.environment())
    return CliRunner().invoke(assemble("reset"), ["reset", "several:app", *arguments])


def test_the_command_resets_one_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs and rows of all other partitions stay as they are."""
    several = Several.begun()
    done = _ran(several, monkeypatch, "--partition", "4", "--yes")
    assert done.exit_code == 0, done.output
    assert "partition 4 of task several/main/0 is reset (journal entry " in done.stderr
    several.driver.restart()
    several.driver.run()
    assert several.driver.table_by_partition(several.counts) == {p: {"a": 1} for p in range(PARTITIONS)}
    assert len(several.driver.outputs(several.out)) == PARTITIONS + 1


def test_a_task_and_a_partition_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two would silently not count."""
    done = _ran(Several.begun(), monkeypatch, "--task", "1", "--partition", "1")
    assert done.exit_code == 2
    assert "cannot be combined with --task" in done.output


@pytest.mark.parametrize("option", ["--task", "--partition"])
def test_an_option_that_is_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """Only the last one would count, and the operator would believe that both were reset."""
    several = Several.begun()
    done = _ran(several, monkeypatch, option, "0", option, "1", "--yes")
    assert done.exit_code == 2
    assert f"Invalid value for {option}: can be given once" in done.output
    assert _ran(several, monkeypatch, option, "0", "--yes").exit_code == 0

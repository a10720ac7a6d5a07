"""`pipeline doctor` finds a number of tasks with which a worker refuses to start."""

from __future__ import annotations

import pytest

from pipeline.app import declared_app
from pipeline.doctor.findings import Finding, Level
from pipeline.doctor.tasks import check_tasks
from pipeline.errors import ConfigError
from tests.support.runtime.several import PARTITIONS, Several


def checked(several: Several, tasks: int | None = None) -> Finding:
    declared = declared_app(several.app)
    (found,) = check_tasks(
        declared if tasks is None else declared.with_tasks(tasks), several.driver.environment()
    )
    return found


def refused(several: Several, tasks: int) -> ConfigError:
    """What a worker says that is started with this number of tasks."""
    driver = several.driver
    driver.stop()
    driver._tasks = tasks
    with pytest.raises(ConfigError) as caught:
        driver.run()
    return caught.value


@pytest.mark.parametrize("tasks", [PARTITIONS + 1, 3])
def test_a_number_that_a_worker_refuses_is_a_problem_with_its_words(tasks: int) -> None:
    """One more than the partitions; another one than the group was started with."""
    several = Several.begun()
    found = checked(several, tasks)
    assert (found.level, found.text) == (Level.PROBLEM, refused(several, tasks).message)
    assert found.hint.startswith("declare ")


def test_the_number_of_a_group_that_can_start_is_named() -> None:
    """Before its first start, and after it."""
    assert checked(Several()) == Finding("tasks", Level.OK, "group main has 2 tasks")
    assert checked(Several.begun()).level is Level.OK


def test_a_group_with_missing_or_unequal_inputs_is_left_to_the_check_of_topics() -> None:
    """The same mistake is reported once."""
    several = Several()
    several.driver.broker.delete("numbers")
    environment = several.driver.environment()
    assert list(check_tasks(declared_app(several.app), environment)) == []

"""What `pipeline reset` says before it asks."""

from __future__ import annotations

from pipeline.app import declared_app
from pipeline.cli.reset import _consequences, _rows
from pipeline.runtime.reset import plan_reset, start_at
from tests.support.ops.dead_letters.orders import Orders


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
    assert list(_rows(planned)) == [["main/0", "amounts", 1, 0, 1, 0], ["main/1", "amounts", 2, 0, 2, 0]]
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
        ["main/0", "amounts", None, 0, 0, 0],
        ["main/1", "amounts", None, 0, 0, 0],
    ]
    said = _consequences(planned)
    assert "produced again" not in said
    assert "read for the first time, from the new position: amounts" in said

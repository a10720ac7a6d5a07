"""Tables whose type changes between two versions of an app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.errors import ConfigError
from pipeline.ports import Step
from pipeline.testing import TestDriver


class Total(msgspec.Struct, frozen=True):
    """The first version."""

    amount: int = 0


class Money(msgspec.Struct, frozen=True):
    """The second version: the field has another name, so that the old bytes would read as zero."""

    cents: int = 0
    upgraded: bool = False


def to_money(old: Any) -> Money:
    return Money(old["amount"] * 100, upgraded=True)


def make_app(
    value: type, upgrade: Callable[[Any], Any] | None = None, *, key: type = str, codec: Any = None
) -> App:
    app = App("money")
    events = app.topic("events", key=str, value=int)
    totals: Any = app.table("totals", key=key, value=value, codec=codec, upgrade=upgrade)
    app.table("other", key=str, value=int)

    @app.handler(events)
    def add(event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(totals)
        seen = table.get(event.key, value())
        if isinstance(seen, Money):
            table[event.key] = Money(seen.cents + 100 * event.value, seen.upgraded)
        else:
            table[event.key] = value(seen.amount + event.value)

    return app


def started(codec: Any = None, partitions: int = 2) -> TestDriver:
    app = make_app(Total, codec=codec)
    driver = TestDriver(app, partitions=partitions)
    for key in "abc":
        driver.send(declared_app(app).topics["events"], key, 1)
    driver.run()
    return driver


def rows(driver: TestDriver) -> dict[str, Any]:
    return driver.table(declared_app(driver.app).main.tables["totals"])


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_every_row_is_upgraded_once_before_any_handler(codec: str, empty_disk: bool) -> None:
    """A renamed field would otherwise read as zero, silently."""
    driver = started(codec)
    new = make_app(Money, to_money, codec=codec)
    driver.restart(app=new, empty_disk=empty_disk)
    driver.send(declared_app(new).topics["events"], "a", 2)
    driver.run()
    expected = {"a": Money(300, True), "b": Money(100, True), "c": Money(100, True)}
    assert rows(driver) == expected
    driver.restart(app=make_app(Money, to_money, codec=codec), empty_disk=empty_disk)
    driver.run()
    assert rows(driver) == expected


def test_a_change_of_codec_is_a_change_of_schema_and_can_be_upgraded() -> None:
    """The old bytes are read as what they are."""
    driver = started("msgpack")
    driver.restart(app=make_app(Money, to_money, codec="json"))
    driver.run()
    assert rows(driver) == {key: Money(100, True) for key in "abc"}


@pytest.mark.parametrize(
    "step", [Step.BEFORE_ACQUIRE, Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY, Step.AFTER_ACQUIRE]
)
def test_a_crash_in_an_upgrade_leaves_every_row_old_or_every_row_new(step: Step) -> None:
    """The rows travel in the acquire entry: an upgrade that ran twice on a row would ruin it."""
    driver = started()
    for _ in range(3):
        driver.restart(app=make_app(Money, to_money))
        driver.crash_at(step)
        driver.run()
    driver.restart()
    driver.run()
    assert rows(driver) == {key: Money(100, True) for key in "abc"}


def test_a_row_that_cannot_be_upgraded_stops_the_task_and_changes_nothing() -> None:
    """The error names the row; the old version can still run, and so can a corrected function."""
    driver = started(partitions=1)

    def picky(old: Any) -> Money:
        if old["amount"] == 1:
            raise ValueError("no ones")
        return to_money(old)

    driver.restart(app=make_app(Money, picky))
    with pytest.raises(
        ConfigError, match=r"upgrade of table totals failed at key '[abc]': ValueError: no ones"
    ):
        driver.run()
    driver.restart(app=make_app(Total))
    driver.run()
    assert rows(driver) == {key: Total(1) for key in "abc"}
    driver.restart(app=make_app(Money, to_money))
    driver.run()
    assert rows(driver) == {key: Money(100, True) for key in "abc"}


def test_a_value_of_the_wrong_type_is_refused_as_in_a_handler() -> None:
    """An upgrade function is user code like any other."""
    driver = started()
    driver.restart(app=make_app(Money, lambda _old: Total(1)))
    with pytest.raises(ConfigError, match="expected Money, got Total"):
        driver.run()


def test_a_changed_key_cannot_be_upgraded() -> None:
    """A key also says in which partition its row lives."""
    driver = started()
    driver.restart(app=make_app(Money, to_money, key=bytes))
    with pytest.raises(ConfigError, match="the key of table totals changed, and only values can be upgraded"):
        driver.run()


def test_an_upgrade_that_is_no_function_is_refused_when_it_is_declared() -> None:
    """Not at the first start after a change, months later."""
    with pytest.raises(ConfigError, match="must be a function"):
        make_app(Total, "old")  # type: ignore[arg-type]

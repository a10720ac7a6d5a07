"""Every kind of state on its way to another worker, and to another app: nothing is lost, and nothing is shown twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.app import declared_app
from pipeline.cli.table_rows import rows_of
from pipeline.core.names import TaskId
from pipeline.ops.migration.copying import run_copy
from pipeline.ops.migration.migration import Migration, survey
from pipeline.testing import TestDriver
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.every_kind import EveryKind
from tests.support.runtime.fleet import Fleet

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

KEYS = [f"key-{number}" for number in range(9)]


def driver_on(kinds: EveryKind, broker: MemoryBroker, partitions: int) -> TestDriver:
    """A driver of an app in this broker."""
    driver = TestDriver(kinds.app, partitions=partitions)
    driver.broker = broker
    driver.create_topics()
    return driver


def send(kinds: EveryKind, driver: TestDriver) -> None:
    """Payments of every key within a minute, so that none is late whatever the clocks of the partitions are."""
    for number, key in enumerate(KEYS):
        kinds.put(driver, (key, number, 5), (key, 10 * number, 40))


def rows(kinds: EveryKind, stores: MemoryStores) -> dict[str, list[Any]]:
    """All rows of the states, by table. Offsets of join events differ from topic to topic."""
    found: dict[str, list[Any]] = {}
    for task in sorted(stores.positions()):
        store = stores.open(task)
        for name, key, value in _shown(kinds, store, task):
            found.setdefault(name, []).append((key, value))
        store.close()
    return {name: sorted(values, key=repr) for name, values in found.items()}


def _shown(kinds: EveryKind, store: Any, task: TaskId) -> Iterator[tuple[str, str, Any]]:
    for name, definition in declared_app(kinds.app).groups[0].tables.items():
        for row in rows_of(definition, store, task, None):
            value = row.value
            if name.startswith("paid:"):
                value = (value.time_ms, value.matched, value.value)
            yield name, str(row.key), value


def test_a_standby_has_every_kind_of_row() -> None:
    """It copies the journal of the owner, and runs no handler."""
    fleet, kinds = Fleet(partitions=4), EveryKind()
    send(kinds, driver_on(kinds, fleet.broker, 4))
    first = fleet.start("a", sums=kinds)  # type: ignore[arg-type]
    fleet.settle()
    contents = {task: first.stores.contents(task) for task in first.live}
    assert len(contents) == 4
    second = fleet.start("b", sums=kinds)  # type: ignore[arg-type]
    fleet.settle()
    moved = list(second.live)
    assert len(moved) == len(second.log_events("standby_ready")) == 2
    for task in moved:
        assert _rows(second.stores.contents(task)) == _rows(contents[task])
    assert any(_rows(contents[task]) for task in moved)


def _rows(contents: Any) -> dict[bytes, bytes]:
    """Without the clock, which runs on."""
    return {key: data for key, data in contents.items() if not key.endswith(b"\x00tc")}


def test_a_migrated_app_has_every_kind_of_row() -> None:
    """The records are processed again, with clocks of other partitions."""
    old, new = EveryKind(), EveryKind("-2")
    driver = TestDriver(old.app, partitions=2)
    send(old, driver)
    driver.run()
    driver.stop()
    after = driver_on(new, driver.broker, 3)
    after.clock.set_wall_ms(driver.clock.wall_ms())
    migration = Migration("kinds", "kinds-2", {"payments": "payments-2", "orders": "orders-2"})
    cluster, reader = MemoryCluster(driver.broker), MemoryJournalReader(driver.broker)
    for copy in survey(migration, cluster, reader, driver.clock, incomplete=False).copies:
        run_copy(copy, "test", driver.environment(), driver.settings, lambda _: None)
    after.run()
    after.stop()
    found = rows(new, after.stores)
    assert found == rows(old, driver.stores)
    assert found.keys() == declared_app(new.app).groups[0].tables.keys()

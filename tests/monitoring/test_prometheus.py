"""The rules and the dashboard with Debian's Prometheus, which apt installs if need be (make test-monitoring)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.broker.ports import choose_ports
from tests.conftest import KafkaUnderTest
from tests.support.debian import UnavailableError, give_up, install_packages
from tests.support.monitoring.fleet import MonitoredFleet
from tests.support.monitoring.prometheus import PACKAGES, Prometheus, Sample, promtool
from tests.support.monitoring.rules import ALERTS, RULE_TESTS, recorded
from tests.support.waiting import wait_until
from tools.dashboard.panels import ROWS

# Unverified: the workers still process records when a test ends.
pytestmark = [pytest.mark.monitoring, pytest.mark.unverified, pytest.mark.timeout(600)]

READY_S = 180.0  # for each step of the preparation; it takes seconds on an idle machine
# Of these panels, a zero would say that the failure did not happen.
NOT_ZERO = ("Failed records", "Open dead letters by group", "Tasks that changed their worker")


@pytest.fixture(scope="module", autouse=True)
def prometheus_installed() -> None:
    """Without Prometheus, tests are skipped; on CI they fail."""
    try:
        install_packages(PACKAGES)
    except UnavailableError as error:
        give_up(error)


def test_the_rules_are_valid() -> None:
    """Prometheus does not start with a wrong rule."""
    assert "SUCCESS" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_and_stays_quiet_as_its_tests_say() -> None:
    """An alert that cannot fire is worse than none; one that fires in a normal restart is ignored in the end."""
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS)


class Watched(NamedTuple):
    """Two workers after a kill, a restore and a dead letter."""

    fleet: MonitoredFleet
    prometheus: Prometheus
    ports: list[int]


@pytest.fixture(scope="module")
def watched(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Prometheus and two workers. One is killed, and starts again when the other has its tasks."""
    directory = tmp_path_factory.mktemp("monitoring")
    api, *ports = choose_ports(3)
    fleet = MonitoredFleet(kafka.bootstrap_servers, f"watched-{api}", directory)
    try:
        fleet.send_bad()
        with Prometheus(directory, api, ports, ALERTS) as prometheus:
            for port in ports:
                fleet.start(port)

            def query(expr: str) -> list[Sample]:
                fleet.check_running()
                return prometheus.query(expr)

            def holds(expr: str) -> None:
                wait_until(lambda: query(expr), lambda: f"{expr}\n{fleet.story()}", READY_S)

            live = f'sum(pipeline_task_phase{{app="{fleet.name}", phase="live"}}) == 6'
            holds(f"{live} and max(pipeline_workers) == 2")
            holds("count(pipeline_checkpoint_age_seconds) > 0")
            fleet.send_bad()  # the first one was counted before the first scrape, which shows no increase
            holds('rate(pipeline_records_total{outcome="dead_letter"}[2m]) > 0')
            fleet.kill(ports[1])
            holds(f"up == 0 and on () ({live})")
            fleet.start(ports[1])
            holds(f"{live} and max(pipeline_workers) == 2 and count(up == 1) == 2")
            holds("max(pipeline_open_dead_letters) > 0")
            yield Watched(fleet, prometheus, ports)
    finally:
        fleet.close()


def test_prometheus_scrapes_each_worker(watched: Watched) -> None:
    """One target for each process: a sum over them is the app."""
    expected = {f"127.0.0.1:{port}": 1 for port in watched.ports}

    def up() -> dict[str, float]:  # 0 after a scrape of more than a second
        return {sample.labels["instance"]: sample.value for sample in watched.prometheus.query("up")}

    wait_until(lambda: up() == expected, lambda: str(up()))


@pytest.mark.parametrize("name", recorded())
def test_each_recorded_series_has_values(name: str, watched: Watched) -> None:
    """A recording rule over a metric that was renamed records nothing, and its alert never fires."""
    wait_until(lambda: watched.prometheus.finite(name), lambda: f"no data: {name}")


def test_the_variables_of_the_dashboard_list_the_app_and_its_groups(watched: Watched) -> None:
    """An empty choice leaves every panel empty."""
    prometheus, name = watched.prometheus, watched.fleet.name
    assert prometheus.label_values("pipeline_workers", "app") == {name}
    groups = prometheus.label_values(f'pipeline_tasks{{app="{name}"}}', "group")
    assert groups == {"main", "counting", "database"}


@pytest.mark.parametrize(
    ("title", "expr"),
    [
        pytest.param(panel.title, query.expr, id=f"{panel.title} {number}")
        for row in ROWS
        for panel in row.panels
        for number, query in enumerate(panel.queries)
    ],
)
def test_each_query_of_the_dashboard_returns_data(title: str, expr: str, watched: Watched) -> None:
    """A panel without data is not noticed until the day on which it is needed."""
    expanded = as_grafana_does(expr, watched.fleet.name)
    least = "> 0" if title in NOT_ZERO else ""
    wait_until(lambda: watched.prometheus.finite(f"({expanded}) {least}"), lambda: f"no data: {expanded}")


def as_grafana_does(expr: str, app: str) -> str:
    """Replace the variables: this app, all groups. A rate covers all failures before the test, which may be slow."""
    found = expr.replace("$__rate_interval", "10m").replace("$app", app).replace("$group", ".*")
    assert not re.search(r"\$", found)
    return found


def test_an_alert_of_the_app_is_pending_with_its_labels(watched: Watched) -> None:
    """The dead letter is open, and the rule waits for an hour before it fires."""
    expr = f'ALERTS{{alertname="PipelineDeadLettersOpen", app="{watched.fleet.name}", group="main"}}'
    wait_until(lambda: watched.prometheus.query(expr), watched.prometheus.story)
    (sample,) = watched.prometheus.query(expr)
    assert sample.labels["alertstate"] == "pending"
    assert sample.labels["severity"] == "warning"


def test_the_rules_are_where_the_documents_say() -> None:
    """The page for operators and the compose file load them from there."""
    assert Path("deploy/prometheus/alerts.yml") == ALERTS.relative_to(ALERTS.parents[2])

"""What docker-compose.yml, the images and the chart promise about a worker, compared with the worker's own settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config import WorkerSettings, load_settings

ROOT = Path(__file__).parents[1]
_WORKERS = ("worker-1", "worker-2", "worker-3")


def _yaml(path: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services() -> Any:
    """The services of the compose file."""
    return _yaml("docker-compose.yml")["services"]


@pytest.mark.parametrize("worker", _WORKERS)
def test_compose_waits_longer_than_a_worker_stops(services: Any, worker: str) -> None:
    """A worker that is killed earlier does not release its tasks."""
    seconds = re.fullmatch(r"(\d+)s", services[worker]["stop_grace_period"])
    assert seconds is not None
    assert int(seconds[1]) > WorkerSettings().stop_timeout_s


@pytest.mark.parametrize("service", [*_WORKERS, "ui", "topics", "load-by-carrier", "load-by-tail"])
def test_compose_gives_our_containers_no_rights(services: Any, service: str) -> None:
    """A service that is added with other anchors must not lose them."""
    found = services[service]
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp"]  # noqa: S108
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("worker", _WORKERS)
def test_compose_sets_settings_that_exist(services: Any, worker: str) -> None:
    """A worker refuses to start with an unknown variable. Each has its own id."""
    environ = {name: str(value) for name, value in services[worker]["environment"].items()}
    settings = load_settings(environ=environ).worker
    assert settings.worker_id == worker
    assert settings.checkpoint_store.startswith("s3://")


def test_compose_opens_ports_to_this_machine_only(services: Any) -> None:
    """Its passwords are known, and Docker's rules for published ports come before those of a firewall."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_page_of_compose_has_a_token(services: Any) -> None:
    """Its container listens on every address. Without a token, it would refuse data to this machine, too."""
    environ = services["ui"]["environment"]
    assert load_settings(environ={name: str(value) for name, value in environ.items()}).http.token
    assert services["ui"]["command"][1] == services["worker-1"]["command"][1]


def test_prometheus_scrapes_every_worker_of_compose(services: Any) -> None:
    """A worker that is not scraped raises no alert."""
    (job,) = _yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
    (targets,) = (each["targets"] for each in job["static_configs"])
    port = re.search(r"PIPELINE_HTTP_PORT=(\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert port is not None
    workers = {name for name, service in services.items() if service.get("command", [""])[0] == "worker"}
    assert set(targets) == {f"{worker}:{port[1]}" for worker in workers}


def test_the_image_checks_the_port_that_it_opens() -> None:
    """The health check reads the same variable; without one, every container would be unhealthy."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r'^HEALTHCHECK .*CMD \["pipeline", "probe"\]$', dockerfile, re.MULTILINE)
    assert re.search(r"PIPELINE_HTTP_PORT=8080\nEXPOSE 8080$", dockerfile, re.MULTILINE)


def test_the_chart_has_the_version_of_the_package() -> None:
    """Its default tag is that version."""
    chart = _yaml("deploy/helm/Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_alerts_and_dashboard_of_the_chart_are_links() -> None:
    """A copy would age."""
    for name, source in (
        ("alerts.yml", "prometheus/alerts.yml"),
        ("dashboard.json", "grafana/dashboard.json"),
    ):
        link = ROOT / "deploy" / "helm" / "files" / name
        assert link.is_symlink()
        assert link.resolve() == (ROOT / "deploy" / source).resolve()

"""Runs docker-compose.yml under a unique name: starts it, finds its containers, removes all that it created."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support.containers.engine import Engine
from tests.support.containers.images import ROOT, Images
from tests.support.debian import UnavailableError

__all__ = ["SERVICES", "UI_TOKEN", "Ports", "Project", "sweep"]

_NAME = "pipeline-test-"  # followed by the process id of the run
_LABEL = "io.podman.compose.project"
_UP_S = 600.0
_GRACE_S = 40
_SHOWN_LINES = 25
_APP = "examples.flights.database:app"
_SETTINGS = ("PIPELINE_", "AWS_", "DATABASE_URL=")
UI_TOKEN = "of-the-test"  # noqa: S105 - of the test alone
_ADDRESSES = {"kafka": 10, "postgres": 11, "store": 12}  # as in fixed-addresses.yml

# Everything but Grafana, whose program is in no package registry. Tests of its files are in tests/monitoring.
SERVICES = (
    *("kafka", "postgres", "store", "prometheus", "ui", "topics"),
    *("load-by-carrier", "load-by-tail", "worker-1", "worker-2", "worker-3"),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where services listen on this machine, on 127.0.0.1 alone."""

    kafka: int
    prometheus: int
    ui: int


class Project:
    """One run of the compose file, without Grafana.

    Args:
        engine: Runs the containers.
        images: The stand-ins of the services.
        ports: The ports of its services on this machine.
    """

    def __init__(self, engine: Engine, images: Images, ports: Ports) -> None:
        if find_spec("podman_compose") is None:
            raise UnavailableError("podman-compose is missing: run `make test-containers`, which installs it")
        self._engine = engine
        self._name = f"{_NAME}{os.getpid()}"
        self._label = f"label={_LABEL}={self._name}"
        self._image = images.flights
        self._network = f"10.89.{_network()}"
        self._variables = {
            "BASE_IMAGE": images.base,
            "KAFKA_IMAGE": images.kafka,
            "POSTGRES_IMAGE": images.postgres,
            "STORE_IMAGE": images.store,
            "PROMETHEUS_IMAGE": images.prometheus,
            "PIPELINE_IMAGE": images.flights,
            "KAFKA_PORT": str(ports.kafka),
            "PROMETHEUS_PORT": str(ports.prometheus),
            "UI_PORT": str(ports.ui),
            "UI_TOKEN": UI_TOKEN,
            "TEST_NETWORK": self._network,
        }

    def up(self) -> None:
        """Start SERVICES, like a user. Returns when all have been started."""
        options = [
            f"--podman-path={ROOT / 'tests' / 'containers' / 'podman'}",
            "--in-pod=false",
            f"--file={ROOT / 'docker-compose.yml'}",
            f"--file={ROOT / 'tests' / 'containers' / 'fixed-addresses.yml'}",
            f"--project-name={self._name}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "podman_compose", *options, "up", "-d", "--no-build", *SERVICES],
            env={**self._engine.environ, **self._variables},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_UP_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def run_alone(self, worker: str) -> str:
        """Start another worker, like `docker run`: without init, with its own volume. Returns its container's id."""
        like = self._engine.inspect(self.container("worker-3"))["Config"]["Env"]
        options = [
            f"--{self._label}",
            f"--network={self._name}_default",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            *(f"--add-host={name}:{self._network}.{n}" for name, n in _ADDRESSES.items()),
            *(f"--env={variable}" for variable in like if variable.startswith(_SETTINGS)),
            f"--env=PIPELINE_WORKER_ID={worker}",
        ]
        return self._engine.run("run", "--detach", *options, self._image, "worker", _APP).strip()

    def container(self, service: str) -> str:
        """The id of a service's container."""
        (found,) = self._engine.ids("container", self._label, f"label=io.podman.compose.service={service}")
        return found

    def logs(self, service: str) -> str:
        """The output of a service's container so far."""
        return self._engine.logs(self.container(service))

    def pipeline(self, container: str, *arguments: str) -> str:
        """Run `pipeline` inside a running container. Returns its standard output."""
        return self._engine.run("exec", container, "pipeline", *arguments)

    def execute(self, service: str, *command: str) -> str:
        """Run a command inside the container of a service. Returns its standard output."""
        return self._engine.run("exec", self.container(service), *command)

    def lose(self, service: str, volume: str) -> None:
        """Kill a container with SIGKILL, and remove it and its disk."""
        container = self.container(service)
        self._engine.run("kill", "--signal=KILL", container)
        self._engine.run("rm", "--force", "--time=0", container)
        self._engine.run("volume", "rm", f"{self._name}_{volume}")

    def stop(self, container: str) -> int:
        """Send SIGTERM. Returns the exit code; 137 if the container had to be killed."""
        self._engine.run("stop", f"--time={_GRACE_S}", container, timeout_s=_GRACE_S + 30)
        return int(self._engine.state(container)["ExitCode"])

    def ended_well(self, service: str) -> bool:
        """Whether a service that terminates has ended with exit code 0."""
        state = self._engine.state(self.container(service))
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0)

    def remove(self) -> None:
        """Remove every container, network and volume of this run by id. Print the last output of the containers."""
        for container in self._engine.ids("container", self._label):
            last = self._engine.logs(container).splitlines()[-_SHOWN_LINES:]
            sys.stdout.write("\n".join([f"-- {container}", *last, ""]))
        _remove(self._engine, self._label)


def sweep(engine: Engine) -> None:
    """Remove the leftovers of killed runs, whose names contain the process id of their run."""
    labels = engine.run("ps", "--all", f"--format={{{{index .Labels {json.dumps(_LABEL)}}}}}").split()
    for name in {label for label in labels if label.startswith(_NAME)}:
        if not Path(f"/proc/{name.removeprefix(_NAME)}").exists():
            _remove(engine, f"label={_LABEL}={name}")


def _remove(engine: Engine, label: str) -> None:
    containers = engine.ids("container", label)
    if containers:
        engine.run("rm", "--force", "--time=0", "--volumes", *containers)
    for kind in ("network", "volume"):
        for found in engine.ids(kind, label):
            engine.run(kind, "rm", "--force", found)


def _network() -> int:
    """The third number of this run's addresses, so that two concurrent runs do not collide."""
    return 100 + os.getpid() % 150

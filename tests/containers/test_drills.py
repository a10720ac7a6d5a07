"""Drills on workers in containers: the contract of the engine on the real podman, and a drill from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
import pytest

from pipeline.config import KafkaSettings
from pipeline.core.membership import decode_member
from pipeline.core.names import workers_group
from pipeline.drills.containers import ContainerWorker, find_containers
from pipeline.drills.containers import Engine as DrillEngine
from pipeline.drills.report import Report
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.conftest import KafkaUnderTest
from tests.support.containers.engine import CommandError, Engine
from tests.support.containers.images import Images
from tests.support.drills.engine_contract import check_engine
from tests.support.pages import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1_800)]

_APP = """from pipeline import App, Context, Event

app = App("{name}")
numbers = app.topic("{name}-numbers", key=str, value=int)
sums = app.table("sums", key=str, value=int)

@app.handler(numbers)
def add(event: Event[str, int], ctx: Context) -> None:
    ctx.table(sums)[event.key] = ctx.table(sums).get(event.key, 0) + event.value
"""
_SETTINGS = """[kafka]
"bootstrap.servers" = "{servers}"

[drills]
allow = ["{name}"]
directory = "{directory}"
steady_s = 1
"""


@dataclass(frozen=True)
class Drilled:
    """An app with one worker, `a`, in a container that shares the network of this host."""

    engine: Engine
    servers: str
    name: str
    directory: Path

    def worker(self) -> ContainerWorker | None:
        """The worker as drills find it."""
        cluster = KafkaCluster(KafkaSettings(self.servers))
        try:
            ids = map(decode_member, cluster.member_ids(workers_group(self.name)))
            members = {member.process: member for member in ids if member is not None}
            return next(iter(find_containers(self.name, members, DrillEngine("podman"))), None)
        finally:
            cluster.close()

    def has(self, path: PurePosixPath) -> bool:
        """Whether the container has this directory."""
        try:
            self.engine.run("exec", self.name, "test", "-d", str(path))
        except CommandError:
            return False
        return True

    def logs(self) -> str:
        return self.engine.logs(self.name)


@pytest.fixture
def drilled(
    engine: Engine,
    images: Images,
    kafka: KafkaUnderTest,
    unique_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Drilled]:
    """The app, with a live worker; its container is removed afterwards."""
    monkeypatch.setenv("CONTAINERS_CONF", str(engine.config))
    name = unique_name[-40:].strip("-")
    cluster = KafkaCluster(KafkaSettings(kafka.bootstrap_servers))
    cluster.create([TopicSpec(f"{name}-numbers", 2)])
    cluster.close()
    program = tmp_path / "drilled.py"
    program.write_text(_APP.format(name=name))
    program.chmod(0o644)  # the worker is not root
    (tmp_path / "pipeline.toml").write_text(
        _SETTINGS.format(servers=kafka.bootstrap_servers, name=name, directory=tmp_path / "drills")
    )
    options = ["--detach", "--network=host", f"--name={name}", f"--volume={program}:/app/drilled.py:ro"]
    label = f"--label=io.podman.compose.project=pipeline-test-{os.getpid()}"
    command = ["worker", "drilled:app", "--kafka", kafka.bootstrap_servers, "--worker-id", "a"]
    engine.run("run", *options, label, images.flights, *command)
    try:
        app = Drilled(engine, kafka.bootstrap_servers, name, tmp_path)
        wait_until(lambda: app.logs().count('"task_live"') == 2, app.logs, 120.0)
        yield app
    finally:
        engine.run("rm", "--force", "--volumes", "--time=0", name)


def test_podman_keeps_the_contract(drilled: Drilled) -> None:
    """The unit tests use a fake engine that keeps the same contract."""
    wait_until(lambda: drilled.worker() is not None, drilled.logs, 60.0)
    worker = drilled.worker()
    assert worker is not None
    assert (worker.worker, str(worker.place), worker.volume) == ("a", f"/state/{drilled.name}", True)
    check_engine(worker, drilled.has)


def test_a_container_that_loses_its_disk_restores_its_tasks(drilled: Drilled) -> None:
    """Most workers run in containers, and their volumes are lost with a node."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "drill", "run", "lose-disk", "--containers", "podman", "--yes"],
        cwd=drilled.directory,
        env={**drilled.engine.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + drilled.logs()
    (file,) = (drilled.directory / "drills" / "reports").glob("*.json")
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    assert report.verdict == "held", report.deviations
    assert any(f"container {drilled.name} has ended" in each.text for each in report.fault.evidence)
    assert report.recovery.measured_s is not None
    assert [each.failed for each in report.restored] == [False, False]
    assert report.restored[0].result == "replaced by a new one; the old one was deleted"
    restored = [line for line in drilled.logs().splitlines() if '"task_live"' in line]
    assert len(restored) == 4  # two tasks, before and after
    assert all('"restored_from": "an empty state"' in line for line in restored)

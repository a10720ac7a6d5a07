"""What the containers tests do on a machine that cannot run containers, and with what others have left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.containers.engine import Engine
from tests.support.containers.images import Images
from tests.support.containers.project import sweep
from tests.support.debian import UnavailableError, give_up


def test_missing_engine_skips_on_a_persons_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contributors need podman only for the tests of containers."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Debian"):
        give_up(UnavailableError("this is no Debian"))


def test_missing_engine_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped test is green, and the images would break unnoticed."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Debian"):
        give_up(UnavailableError("this is no Debian"))


@pytest.mark.containers
@pytest.mark.timeout(1_800)
def test_what_a_killed_run_left_is_removed(engine: Engine, images: Images) -> None:
    """Its process is gone, so nothing else would ever remove it; a run at work keeps what is its own."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as alive:
        try:
            gone = subprocess.Popen([sys.executable, "-c", ""])
            gone.wait()
            left, kept = (_created(engine, images, process.pid) for process in (gone, alive))
            sweep(engine)
            found = engine.ids("container", "label=io.podman.compose.project")
            assert left[:12] not in found
            assert kept[:12] in found
        finally:
            alive.kill()
    sweep(engine)
    assert kept[:12] not in engine.ids("container", "label=io.podman.compose.project")


def _created(engine: Engine, images: Images, pid: int) -> str:
    label = f"--label=io.podman.compose.project=pipeline-test-{pid}"
    return engine.run("create", label, images.kafka).strip()

"""`--kafka container`: the suite on a Kafka that testcontainers starts, through podman's socket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.containers.engine import Engine
from tests.support.containers.images import ROOT, Images
from tests.support.containers.service import serving

_SUITE_S = 1_200.0


@pytest.mark.containers
@pytest.mark.timeout(1_800)
def test_contracts_hold_on_a_kafka_in_a_container(engine: Engine, images: Images, tmp_path: Path) -> None:
    """A contributor who has Docker tests on the image that he deploys; nothing is left of it afterwards."""
    before = _left(engine)
    try:
        with serving(engine, tmp_path) as variables:
            done = _contracts("", {**variables, "KAFKA_IMAGE": images.kafka})
        left = _left(engine)
    finally:
        for container in _left(engine)["containers"] - before["containers"]:
            engine.run("rm", "--force", "--time=0", "--volumes", container)
    assert done.returncode == 0, done.stdout[-5_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
    assert left == before


def test_without_an_engine_the_option_says_so(tmp_path: Path) -> None:
    """Not a failure of each test that wanted a Kafka."""
    done = _contracts(
        "/test_members_contract.py", {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/missing"}
    )
    assert done.returncode == 4, done.stdout
    assert "--kafka container: no container could be started" in done.stdout


def _contracts(file: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"tests/contracts{file}",
            "-m",
            "kafka",
            "--kafka",
            "container",
        ],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SUITE_S,
        check=False,
    )


def _left(engine: Engine) -> dict[str, set[str]]:
    """The containers that testcontainers made, and every volume."""
    return {
        "containers": set(engine.ids("container", "label=org.testcontainers=true")),
        "volumes": set(engine.ids("volume")),
    }

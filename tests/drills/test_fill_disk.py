"""fill-disk on a worker whose state directory is a small file system of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.drills.live import LiveApp

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.kills,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which needs root"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The state directory of worker `a`, with 32 MB."""
    directory = tmp_path / "disks" / "a"
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, check=False)
    if mounted.returncode != 0:
        pytest.skip("this environment does not allow mounts")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)  # noqa: S607 - as mount


def test_a_full_disk_fails_tasks_and_a_restart_continues(
    small_disk: Path, kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """A write that fails must never look like one that happened."""
    live = LiveApp(kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path)
    try:
        live.run("run", "fill-disk", "--worker", "a", "--yes")
        report = live.report()
        assert report.verdict == "held", report.deviations
        assert any("blocks of the file system are free" in each.text for each in report.fault.evidence)
        assert not list(small_disk.glob(".drill-*"))
        live.finish()
    finally:
        live.close()

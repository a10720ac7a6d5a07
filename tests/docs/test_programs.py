"""The programs of pages, without a Kafka: each page's own tests, and the files that a reader deploys."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli.main import assemble
from pipeline.config import WorkerSettings, load_settings
from tests.support.pages import ROOT, blocks
from tests.support.walkthrough import read_page

DOCS = ROOT / "docs"
TESTED = sorted(
    path.relative_to(DOCS).with_suffix("").as_posix()
    for path in DOCS.rglob("*.md")
    if any(Path(name).name.startswith("test_") for name in read_page(path).files)
)
# The third test of this page needs a change that the page makes later: test_walkthroughs.py runs it.
LEFT_OUT = {"tutorial/first-app"}


@pytest.mark.parametrize("name", ["faust", "quix-streams", "kafka-streams"])
def test_all_python_of_a_comparison_is_valid(name: str) -> None:
    """The other library is not installed here, so its program is only compiled."""
    programs = blocks(DOCS / "coming-from" / f"{name}.md", "python")
    assert len(programs) >= 2
    for program in programs:
        compile(program, name, "exec")


@pytest.mark.docs
@pytest.mark.parametrize("name", sorted(set(TESTED) - LEFT_OUT))
def test_the_tests_of_a_page_pass(name: str, tmp_path: Path) -> None:
    """They show that the page's program does what the page says, and how to test it."""
    read_page(DOCS / f"{name}.md").save(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4_000:]


class _Unit(configparser.ConfigParser):
    """A unit file of systemd, whose names have capitals."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def test_the_systemd_unit_of_the_tutorial_fits_the_worker(tmp_path: Path) -> None:
    """It is copied to servers: an exit code or a time that does not fit shows only in a failure."""
    page = read_page(DOCS / "tutorial" / "second-app.md")
    page.save(tmp_path)
    unit = _Unit(interpolation=None)
    unit.read_string(page.files["shop.service"])
    service = unit["Service"]
    program, name, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/pipeline")
    root: Any = get_command(assemble())
    root.commands[name].make_context(name, arguments)
    assert int(service["TimeoutStopSec"]) > WorkerSettings().stop_timeout_s
    assert service["RestartPreventExitStatus"] == "5"
    settings = load_settings(file=tmp_path / "pipeline.toml", environ={})
    assert settings.worker.worker_id == "shop-1"

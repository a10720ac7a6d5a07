"""`pipeline runbook`: an operator can read each page, also if only the wheel is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in (ROOT / "runbooks").glob("*.md")}


def test_every_runbook_is_listed_with_its_title(pipeline: Run) -> None:
    """An operator who has no error at hand looks for the symptom."""
    lines = pipeline("runbook", code=0).stdout.splitlines()
    titles = {name: path.read_text().splitlines()[0].removeprefix("# ") for name, path in PAGES.items()}
    assert dict(re.split(r"  +", line, maxsplit=1) for line in lines) == titles


@pytest.mark.parametrize(
    "name",
    [
        *("poison-record", "poison-record.md", "runbooks/poison-record.md"),
        *("runbooks/poison-record/", "https://docs.example.org/pipeline/runbooks/poison-record/"),
    ],
)
def test_a_runbook_is_printed_by_the_name_in_errors_and_alerts(pipeline: Run, name: str) -> None:
    """It is copied from a log or a page; without a terminal the page is as it was written."""
    assert pipeline("runbook", name, code=0).stdout == PAGES["poison-record"].read_text()


def test_every_runbook_that_the_source_names_is_printed(pipeline: Run) -> None:
    """An error must not send anybody to a page that is not there."""
    named = {
        name
        for source in (ROOT / "pipeline").rglob("*.py")
        for name in re.findall(r"runbooks/([a-z-]+)\.md", source.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= PAGES.keys()


def test_a_mistyped_runbook_is_answered_with_the_nearest(pipeline: Run) -> None:
    """Names are long, and it is night."""
    error = pipeline("runbook", "poison-records", code=1).stderr
    assert "there is no runbook 'poison-records'; did you mean 'poison-record'?" in error
    assert "pipeline runbook" in error


def test_a_wheel_holds_every_runbook_where_the_command_looks_and_the_schema_for_editors(
    tmp_path: Path,
) -> None:
    """A production host has no checkout."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {
        "runbooks": "pipeline/runbooks",
        "topics/topic.schema.json": "pipeline/topic.schema.json",
    }
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    found = {path.stem: path.read_text() for path in (tmp_path / "installed/pipeline/runbooks").glob("*.md")}
    assert found == {name: path.read_text() for name, path in PAGES.items()}
    schema = ROOT / "topics" / "topic.schema.json"
    assert (tmp_path / "installed/pipeline/topic.schema.json").read_text() == schema.read_text()
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline", "runbook", "poison-record"],
        cwd=tmp_path / "installed",
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stdout == found["poison-record"]

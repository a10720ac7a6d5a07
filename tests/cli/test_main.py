"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline as package
from tests.cli.conftest import Run


def test_it_knows_its_version(pipeline: Run) -> None:
    """The first question of every report."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert pipeline("--version", code=0).stdout == f"pipeline {project['version']}\n"


INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from pipeline.cli.entry import main
main()
"""


@pytest.mark.parametrize("module", ["confluent_kafka", "pipeline.processes.wiring", "typer"])
def test_ctrl_c_while_it_loads_leaves_no_traceback(module: str) -> None:
    """A user stops a mistyped command at once; that is not an error."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_every_public_name_is_there_and_no_other_is() -> None:
    """Names are loaded when they are asked for: a wrong home would show at the user's import."""
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    assert set(package._HOMES) == set(package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        package.Nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_a_worker_starts_without_loading_the_yaml_library() -> None:
    """It takes as long as the rest of the command line, and most starts read no declaration."""
    code = "import sys, pipeline.cli.worker, pipeline.processes.wiring; print('ruamel.yaml' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "from pipeline import App; App('shop').topic('orders', key=str, value=int)",
            "confluent_kafka rocksdict obstore",
        ),
        ("from pipeline import ConfigError, Settings", "confluent_kafka rocksdict structlog"),
        ("from pipeline.testing import TestDriver", "pipeline.broker"),
    ],
)
def test_an_import_loads_no_client_that_it_does_not_need(statement: str, absent: str) -> None:
    """They take a quarter of a second, in each test run of an app and in each command that imports one."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\n{statement}\nprint([m for m in {absent.split()} if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"

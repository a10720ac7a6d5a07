"""Checks a release as a user meets it: `make release-check`.

1. Build the source archive, and from its content the wheel. The wheel of the checkout must be the same file.
2. Check the metadata and the files of the wheel.
3. Install the wheel with the extra `local` in an empty environment, as the README says.
4. In empty directories, with this environment alone: run the README's first program and its test, `pipeline new` with
   the commands that it prints, and `pipeline demo`.

Each Kafka listens on a free port of 127.0.0.1 and is stopped at the end. Ends with 1 at the first step that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import Metadata

from pipeline.broker import default_data_dir
from pipeline.broker.ports import choose_ports
from tests.support.walkthrough import Page, environment_of_a_reader, page_of, printed_commands

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_STEP_S = 300
_NEEDED = (
    "pipeline/py.typed",
    "pipeline/broker/kafka.lock.json",
    "pipeline/ops/project_template/app.py.txt",
    "pipeline/runbooks/poison-record.md",
    "pipeline/topic.schema.json",
)


class CheckError(Exception):
    """The release is not as it must be."""


def main() -> int:
    """Run all steps; the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pipeline-release-") as name:
        directory = Path(name)
        try:
            _check(directory)
        except (CheckError, AssertionError, ExceptionGroup, subprocess.SubprocessError) as error:
            _say(f"release-check failed: {error}")
            return 1
    _say(f"release-check: version {PROJECT['version']} is ready, {time.monotonic() - began:.0f} s")
    return 0


def _check(directory: Path) -> None:
    # 1.
    wheel = _build(directory)
    # 2.
    check_wheel(wheel)
    # 3.
    python = _install(directory / "environment", wheel)
    # 4.
    for check in (_first_program, _new_project, _demo):
        empty = directory / check.__name__
        empty.mkdir()
        began = time.monotonic()
        check(empty, python)
        _say(f"{check.__name__.strip('_').replace('_', ' ')}: passed, {time.monotonic() - began:.0f} s")


def _build(directory: Path) -> Path:
    """The wheel that the source archive builds."""
    dist = directory / "dist"
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(dist)], ROOT)
    (archive,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    with tarfile.open(archive) as packed:
        packed.extractall(directory / "source", filter="data")
    (source,) = (directory / "source").iterdir()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory / "again")], source)
    (again,) = (directory / "again").glob("*.whl")
    if _contents(wheel) != _contents(again):
        raise CheckError("the wheel of the source archive differs from the wheel of the checkout")
    _say(f"built {archive.name} and {wheel.name}")
    return again


def _contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_wheel(wheel: Path) -> None:
    """Check metadata and files. Raises CheckError, or an ExceptionGroup with each field that is not valid."""
    contents = _contents(wheel)
    info = next(name.partition("/")[0] for name in contents if ".dist-info/" in name)
    raw = contents[f"{info}/METADATA"]
    found = Metadata.from_email(raw, validate=True)
    declared = (PROJECT["name"], PROJECT["version"], PROJECT["requires-python"])
    if (found.name, str(found.version), str(found.requires_python)) != declared:
        raise CheckError(f"{wheel.name}: name, version and Python are not {declared}")
    if found.description_content_type != "text/markdown" or "# exactly-once-pipeline" not in (
        found.description or message_from_bytes(raw).get_payload()
    ):
        raise CheckError(f"{wheel.name}: the description is not the README")
    if f"{info}/licenses/LICENSE" not in contents:
        raise CheckError(f"{wheel.name} has no licence")
    if b"pipeline = pipeline.cli.entry:main" not in contents[f"{info}/entry_points.txt"]:
        raise CheckError(f"{wheel.name} has no command `pipeline`")
    missing = [name for name in _NEEDED if name not in contents]
    other = [name for name in contents if not name.startswith(("pipeline/", f"{info}/"))]
    if missing or other:
        raise CheckError(f"{wheel.name}: missing files {missing}, other files {other}")


def _install(environment: Path, wheel: Path) -> Path:
    """An environment with the wheel, its extra `local` and pytest; its Python."""
    began = time.monotonic()
    _run([sys.executable, "-m", "venv", str(environment)], ROOT)
    python = environment / "bin" / "python"
    pinned = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    _run([str(python), *pinned, f"{wheel}[local]", "pytest"], environment)
    _run([str(python), "-m", "pip", "check"], environment)
    shown = _run([str(environment / "bin" / "pipeline"), "--version"], environment).strip()
    if shown != f"pipeline {PROJECT['version']}":
        raise CheckError(f"`pipeline --version` prints {shown!r}")
    _say(f"installed in an empty environment, {time.monotonic() - began:.0f} s")
    return python


def _first_program(directory: Path, python: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## A first program\n", 1)[1].split("\n## ", 1)[0]
    page = page_of(section)
    test = next(name for name in page.files if name.startswith("test_"))
    with _kafka_address(directory, python) as address:
        with_test = Page(page.files, f"{page.script}\npython -m pytest {test}\n", page.shown)
        with_test.run(directory, address, _STEP_S, python)


def _new_project(directory: Path, python: Path) -> None:
    printed = _run([str(python.parent / "pipeline"), "new", "my-app"], directory, python)
    commands = [
        f"{command} 2> worker.log &" if command.startswith("pipeline worker") else command
        for command in printed_commands(printed)
    ]
    with _kafka_address(directory / "my-app", python) as address:
        Page({}, "\n".join(commands), ["3 passed"]).run(directory, address, _STEP_S, python)


def _demo(directory: Path, python: Path) -> None:
    said = _run([str(python.parent / "pipeline"), "demo", "--seconds", "5"], directory, python)
    last = said.splitlines()[-1]
    if " 0 lost, 0 duplicated, " not in last:
        raise CheckError(f"pipeline demo ended with: {last}")


@contextmanager
def _kafka_address(directory: Path, python: Path) -> Iterator[str]:
    """A free address for `pipeline broker start`; at the end the broker is stopped, and its data deleted."""
    while default_data_dir(port := choose_ports(1)[0]).exists():
        pass  # the records of a broker of the user's
    address = f"127.0.0.1:{port}"
    try:
        yield address
    finally:
        environment = {**environment_of_a_reader(python), "PIPELINE_KAFKA": address}
        stop = [str(python.parent / "pipeline"), "broker", "stop"]
        subprocess.run(stop, cwd=directory, env=environment, capture_output=True, check=True, timeout=_STEP_S)  # noqa: S603
        shutil.rmtree(default_data_dir(port), ignore_errors=True)


def _run(command: Sequence[str], directory: Path, python: Path = Path(sys.executable)) -> str:
    """Run a command to its end; its standard output. Raises CheckError."""
    environment = {
        name: value for name, value in environment_of_a_reader(python).items() if name != "PYTHONPATH"
    }
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=directory,
        env={**environment, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "1577836800")},
        capture_output=True,
        text=True,
        timeout=_STEP_S,
        check=False,
    )
    if done.returncode != 0:
        raise CheckError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a script


if __name__ == "__main__":
    sys.exit(main())

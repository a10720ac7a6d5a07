"""The check of a built wheel: it accepts what is built, and refuses a wheel that lacks something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools.release_check import ROOT, CheckError, check_wheel

Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (found,) = directory.glob("*.whl")
    return found


def _rewritten(wheel: Path, directory: Path, change: Callable[[Contents], object]) -> Path:
    with ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with ZipFile(directory / wheel.name, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return directory / wheel.name


def test_the_wheel_of_this_checkout_is_accepted(wheel: Path) -> None:
    """A check that refuses a good wheel is switched off."""
    check_wheel(wheel)


def _named(contents: Contents, end: str) -> str:
    return next(name for name in contents if name.endswith(end))


def _without(end: str) -> Callable[[Contents], object]:
    return lambda contents: contents.pop(_named(contents, end))


def _with_tests(contents: Contents) -> None:
    contents["tests/__init__.py"] = b""


def _another_version(contents: Contents) -> None:
    name = _named(contents, "/METADATA")
    contents[name] = contents[name].replace(b"\nVersion: ", b"\nVersion: 9.", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("project_template/app.py.txt"), "missing files"),
        (_without("runbooks/poison-record.md"), "missing files"),
        (_without("licenses/LICENSE"), "no licence"),
        (_with_tests, "other files"),
        (_another_version, "are not"),
    ],
)
def test_a_wheel_that_lacks_something_is_refused(
    wheel: Path, tmp_path: Path, change: Callable[[Contents], object], reason: str
) -> None:
    """A missing file shows only where there is no checkout: on a user's machine."""
    with pytest.raises(CheckError, match=reason):
        check_wheel(_rewritten(wheel, tmp_path, change))

"""The two builds of the package that are compared: this one, and the last one before the reorganisation.

The earlier build is taken from the repository's history. It runs with the dependencies of this build: the earlier
package is first in Python's module path, followed by the programs of this repository.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OLD_COMMIT", "SHARING_COMMIT", "Build", "NoHistoryError", "new_build", "old_build"]

OLD_COMMIT = "0df7e96c430b6b59991a7a7613f88095cfa588b2"
SHARING_COMMIT = "61249f90a7cc83fe8de1d6a387a9de4c454c03ec"  # an earlier build with the ring of this one
ROOT = Path(__file__).parents[3]
COMMAND_S = 150.0
_NONE: Mapping[str, str] = {}


class NoHistoryError(Exception):
    """The repository does not contain the commit of the earlier build."""


@dataclass(frozen=True)
class Build:
    """A build of the package. `path`: the first directory of Python's module path. Its processes run in `directory`."""

    name: str
    path: tuple[Path, ...]
    directory: Path

    def arguments(self, *arguments: str) -> list[str]:
        """`python ...` with this build. Python itself adds no directory to the path."""
        return [sys.executable, "-P", *arguments]

    def variables(self, more: Mapping[str, str] = _NONE) -> dict[str, str]:
        """The environment of its processes."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.path)), **more}

    def start(
        self, log: Path, *arguments: str, variables: Mapping[str, str] = _NONE
    ) -> subprocess.Popen[bytes]:
        """Start `python ...` in the background. Its output is appended to `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self.arguments(*arguments),
                cwd=self.directory,
                env=self.variables(variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def pipeline(self, *arguments: str, code: int = 0, variables: Mapping[str, str] = _NONE) -> str:
        """Run `pipeline ...` to its end.

        Returns its output. Raises AssertionError with both streams for another exit code.
        """
        done = subprocess.run(
            self.arguments("-m", "pipeline", *arguments),
            cwd=self.directory,
            env=self.variables(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
        )
        if done.returncode != code:
            raise AssertionError(
                f"pipeline {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout + (done.stderr if code else "")


def new_build(directory: Path) -> Build:
    """This build: the package beside these tests."""
    return Build("new", (ROOT,), directory)


def old_build(directory: Path, commit: str = OLD_COMMIT) -> Build:
    """An earlier build, unpacked into `directory`. Raises NoHistoryError."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "pipeline"],  # noqa: S607 - found by PATH
            capture_output=True,
            check=False,
        )
        said = done.stderr.decode(errors="replace").strip()
    except FileNotFoundError:
        done, said = None, "git is not installed"
    if done is None or done.returncode != 0:
        raise NoHistoryError(
            f"the earlier build, commit {commit}, cannot be taken from the history of {ROOT}: {said}\n"
            "use a clone with the whole history: git fetch --unshallow"
        )
    package = directory / "old-build"
    package.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(package, filter="data")
    build = Build("old", (package, ROOT), package)
    imported = subprocess.run(
        build.arguments("-c", "import pipeline; print(pipeline.__file__)"),
        cwd=build.directory,
        env=build.variables(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if Path(imported) != package / "pipeline" / "__init__.py":
        raise AssertionError(f"the earlier build would run {imported}")
    return build

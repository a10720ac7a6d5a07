"""The chart: its objects for a set of values, and the refusal of wrong values."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

__all__ = ["CHART", "RELEASE", "Chart"]

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm"
RELEASE = "delays"
_VALUES = ROOT / "tests" / "helm" / "values"
_HELM_S = 60.0
_NOTES = """notes: |
  {{- tpl (.Files.Get "NOTES.txt") . | nindent 2 }}
"""


class Chart:
    """Renders the chart with `helm`. `sets`: options of --set, such as `replicas=0`."""

    def __init__(self, helm: Path) -> None:
        self._helm = helm

    def lint(self, values: str) -> subprocess.CompletedProcess[str]:
        """Run `helm lint --strict` with a file of tests/helm/values."""
        return self._run(["lint", "--strict", str(CHART), self._file(values)])

    def text(self, values: str) -> str:
        """All objects for a file of tests/helm/values, as YAML."""
        done = self._template(values, ())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, values: str, *sets: str) -> list[dict[str, Any]]:
        """All objects, in the order of the output."""
        done = self._template(values, sets)
        assert done.returncode == 0, done.stderr
        return [found for found in YAML(typ="safe", pure=True).load_all(done.stdout) if found]

    def one(self, kind: str, values: str, *sets: str) -> dict[str, Any]:
        """The only object of a kind."""
        (found,) = [each for each in self.objects(values, *sets) if each["kind"] == kind]
        return found

    def refusal(self, values: str, *sets: str) -> str:
        """The error of values that the chart must refuse."""
        done = self._template(values, sets)
        assert done.returncode != 0, f"{sets} were not refused"
        return done.stderr

    def notes(self, values: str, scratch: Path) -> str:
        """The text that an installation prints. Helm prints it with a cluster only, so a template has it here."""
        copy = scratch / values
        shutil.copytree(CHART, copy)
        (copy / "templates" / "NOTES.txt").rename(copy / "NOTES.txt")
        (copy / "templates" / "notes.yaml").write_text(_NOTES, encoding="utf-8")
        done = self._run(
            ["template", RELEASE, str(copy), "--show-only=templates/notes.yaml", self._file(values)]
        )
        assert done.returncode == 0, done.stderr
        return str(YAML(typ="safe", pure=True).load(done.stdout)["notes"])

    def _template(self, values: str, sets: Sequence[str]) -> subprocess.CompletedProcess[str]:
        options = [option for each in sets for option in ("--set", each)]
        return self._run(
            ["template", RELEASE, str(CHART), "--namespace=streams", self._file(values), *options]
        )

    @staticmethod
    def _file(values: str) -> str:
        return f"--values={_VALUES / values}.yaml"

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._helm), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_HELM_S,
            check=False,
        )

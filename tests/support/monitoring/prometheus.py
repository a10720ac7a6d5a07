"""Debian's Prometheus: `promtool`, and a server of one test."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import wait_until

__all__ = ["PACKAGES", "Prometheus", "Sample", "promtool"]

PACKAGES = ("prometheus",)
_REQUEST_S = 20.0
_TOOL_S = 120.0
_CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
  external_labels: {{pipeline_docs: "https://docs.example.org/"}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: pipeline
    static_configs:
      - targets: {targets}
"""


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} of Debian's package prometheus"
    return found


def promtool(*arguments: str | Path) -> str:
    """Run promtool. Returns its output. Fails the test if it fails."""
    done = subprocess.run(
        [_program("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=_TOOL_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of the result of a query, at one time."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A server with the rules of a file, which scrapes ports of this machine every second.

    Args:
        directory: Its data.
        port: Of its API.
        targets: The ports of the workers.
        rules: The file with alert rules.
    """

    def __init__(self, directory: Path, port: int, targets: Sequence[int], rules: Path) -> None:
        self._directory = directory
        self._port = port
        self._log = directory / "prometheus.log"
        config = directory / "prometheus.yml"
        addresses = json.dumps([f"127.0.0.1:{target}" for target in targets])
        config.write_text(_CONFIG.format(rules=rules, targets=addresses), encoding="utf-8")
        promtool("check", "config", config)
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [
                    _program("prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        try:
            wait_until(self._is_ready, self.story)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()

    def query(self, expr: str) -> list[Sample]:
        """The result of an instant query now. Fails the test if the query is refused."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        assert answer["data"]["resultType"] == "vector", expr
        return [Sample(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def finite(self, expr: str) -> list[Sample]:
        """Those samples that are numbers: a quotient or a quantile of nothing is not."""
        return [sample for sample in self.query(expr) if math.isfinite(sample.value)]

    def label_values(self, selector: str, label: str) -> set[str]:
        """The values of a label, as a variable of a dashboard lists them."""
        query = urllib.parse.urlencode({"match[]": selector})
        return set(self._get(f"/api/v1/label/{label}/values?{query}")["data"])

    def story(self) -> str:
        """The end of its log."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4_000:]

    def _is_ready(self) -> bool:
        assert self._server.poll() is None, self.story()
        try:
            self._request("/-/ready")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> Any:
        return json.loads(self._request(path))

    def _request(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self._port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=_REQUEST_S) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise

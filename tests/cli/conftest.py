"""The `pipeline` command as a process without a Kafka, in a directory of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.afterwards import (
    committed_records,
    committed_records_are_verified,
    memory_records_are_verified,
)

__all__ = ["committed_records", "committed_records_are_verified", "memory_records_are_verified"]

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 60
_ENVIRONMENT = {
    "PYTHONPATH": str(_ROOT),
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "PIPELINE_KAFKA_STARTUP_WAIT_S": "0",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Run:
    """Runs `pipeline ARGUMENTS` to its end; `code` is what it must end with. It waits for no Kafka."""

    def run(
        *arguments: str, code: int, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        without = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=tmp_path,
            env={**without, **_ENVIRONMENT, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "site-packages" not in done.stderr, done.stderr
        return done

    return run

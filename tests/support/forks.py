"""Runs pytest again and again, each time in a fork of one process that has loaded pytest and the libraries.

Loading them takes a second of CPU time, most of the cost of a row. Only the fork loads the broken package: the process
that forks has not imported it and has no threads. `Forks` is the client. As a program, this file is the process that
forks: it reads a line of JSON for each run, and writes a line with the exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

LIBRARIES = (
    "confluent_kafka.admin", "hypothesis.stateful", "msgspec", "pytest", "pytest_timeout", "rich.console",
    "rich.table", "rich.traceback", "rocksdict", "structlog", "typer", "xdist.plugin", "yaml",
)  # fmt: skip
TIMEOUT_S = 180.0


class Forks:
    """The process that forks, in `directory`, from which it imports `pipeline` and `tests`."""

    def __init__(self, directory: Path) -> None:
        self._output = directory / "output.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(directory / "compiled"), str(self._output), *LIBRARIES],
            cwd=directory,
            env={"PYTHONPATH": str(directory), "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pytest(self, *arguments: str) -> tuple[int, str]:
        """Run pytest.

        Returns its exit code, negative after a signal, and its output. Sends SIGKILL after `TIMEOUT_S`.
        """
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        asked.write(json.dumps(arguments) + "\n")
        asked.flush()
        return int(answered.readline()), self._output.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _fork(compiled: str, output: str, libraries: list[str]) -> int:
    """Serve runs until the input ends. Returns the exit code of the process, also in a fork."""
    for name in libraries:
        importlib.import_module(name)
    import pytest  # noqa: PLC0415 - loaded now

    sys.pycache_prefix = compiled
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with Path(output).open("wb") as file:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            # The libraries are loaded, so their asserts can no longer be rewritten; they contain no tests.
            quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
            return int(pytest.main([*quiet, *json.loads(line)]))
        ended = os.pidfd_open(child)
        if not select.select([ended], [], [], TIMEOUT_S)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(ended)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    sys.exit(_fork(sys.argv[1], sys.argv[2], sys.argv[3:]))

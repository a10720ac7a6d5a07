"""Runs `pipeline ...` in processes that start fast: `Commands`.

Python and the modules of the command are loaded once, in the fork server of the standard library. Each command is a
fork of it, with a working directory, variables and outputs of its own. Starting an interpreter takes a second of the
processor, and tests of permissions run more than a hundred commands.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

from pipeline.cli.main import COMMANDS, main

__all__ = ["Commands"]

_PRELOADED = [
    "pytest",  # the main module of the tests, which the new process would load otherwise
    __name__,
    *(f"pipeline.cli.{COMMANDS[name].partition(':')[0]}" for name in COMMANDS),
]


class Commands:
    """Starts commands. Thread-safe after the first one."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def start(
        self, arguments: Sequence[str], directory: Path, variables: Mapping[str, str], out: Path, err: Path
    ) -> BaseProcess:
        """Start a command. Its outputs are appended to the files."""
        process = self._context.Process(
            target=_run, args=(list(arguments), str(directory), dict(variables), str(out), str(err))
        )
        process.start()
        return process

    def run(
        self, arguments: Sequence[str], directory: Path, variables: Mapping[str, str], timeout_s: float
    ) -> CompletedProcess[str]:
        """Run a command to its end."""
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            process = self.start(arguments, directory, variables, out, err)
            process.join(timeout_s)
            if process.exitcode is None:
                process.kill()
                process.join()
                raise TimeoutError(
                    f"{' '.join(arguments)} runs for more than {timeout_s:g} s: {err.read_text()}"
                )
            return CompletedProcess(list(arguments), process.exitcode, out.read_text(), err.read_text())


def _run(arguments: list[str], directory: str, variables: dict[str, str], out: str, err: str) -> None:
    """In the new process: become the command."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(directory)
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["pipeline", *arguments]
    main()

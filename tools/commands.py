"""Commands that the tools run on an app, in its directory, and the end of its workers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.demo.processes import DemoError
from pipeline.drills.workers import holder_of

__all__ = ["PIPELINE", "exit_code_of", "kill_workers"]

PIPELINE = (sys.executable, "-m", "pipeline")
_END_S = 60.0


def exit_code_of(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str], directory: Path, hint: str
) -> int:
    """The exit code of a command. Raises DemoError with `hint` if it takes longer than `limit_s`.

    SIGINT lets it restore and end what it has started.
    """
    with subprocess.Popen(command, cwd=directory, env=environment) as process:  # noqa: S603
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            process.kill()
            raise DemoError(f"{' '.join(command[1:5])} took over {limit_s:.0f} s", hint=hint) from error


def kill_workers(workspace: Path, app: str) -> None:
    """Kill the workers of an app, also those that drills have started.

    They hold the lock of a state directory below the workspace.
    """
    for place in (workspace / "disks").glob(f"*/{app}"):
        process = holder_of(place)
        if process is not None:
            process.send(signal.SIGKILL)

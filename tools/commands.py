"""How the tools run commands on an app, end its workers, and end themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline import PipelineError
from pipeline.demo.processes import DemoError, Ended, ended_by_signals
from pipeline.drills.workers import holder_of

__all__ = ["PIPELINE", "ExitCode", "exit_code", "exit_code_of", "kill_workers"]

PIPELINE = (sys.executable, "-m", "pipeline")
_END_S = 60.0


@dataclass(slots=True)
class ExitCode:
    """The exit code of a tool."""

    value: int = 0


@contextmanager
def exit_code(console: Console, tool: str) -> Iterator[ExitCode]:
    """The tool's exit code, which the block may set. An error or a signal ends the block and is printed in one line."""
    code = ExitCode()
    try:
        with ended_by_signals():
            yield code
    except PipelineError as error:
        console.print(f"{tool} failed: {error}", markup=False)
        code.value = 1
    except Ended as ended:
        console.print(f"ended by {ended}, and with it all that was started")
        code.value = ended.exit_code


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

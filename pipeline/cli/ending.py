"""Ends a command whose work is done, whatever the user's module has left running in its process.

The interpreter waits for threads that are not daemons and for child processes of multiprocessing, without a limit. A
worker that has stopped would look alive to its supervisor, and a failed one would not be started again.
"""

from __future__ import annotations

import os
import sys
import threading
import time

__all__ = ["end_soon"]

LINGER_S = 3.0


def end_soon(code: int) -> None:
    """Let the interpreter end by itself; after LINGER_S, name what keeps it and end the process with `code`."""
    if _left_behind():
        threading.Thread(target=_end, args=(code,), daemon=True, name="pipeline-end").start()


def _end(code: int) -> None:
    time.sleep(LINGER_S)
    left = ", ".join(_left_behind()) or "a function registered with atexit"
    reason = f"the command has ended, and its process was kept by: {left}"
    advice = "stop them when the app stops (a resource's close() is called then), or start them as daemons"
    structlog = sys.modules.get("structlog")  # a command that logs has loaded it
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
    """What the interpreter waits for."""
    main = threading.main_thread()
    threads = [t for t in threading.enumerate() if t is not main and not t.daemon and t.is_alive()]
    found = [f"thread {thread.name}" for thread in threads]
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:  # not loaded: there are none
        found += [f"process {p.pid} ({p.name})" for p in processes.active_children() if not p.daemon]
    return found

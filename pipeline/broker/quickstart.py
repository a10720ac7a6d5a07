"""Makes every later start of Kafka quick: a cache of loaded and linked classes, made once after the installation.

Most of a start is the JVM reading 9,000 classes out of 46 jars; the wheel's runtime has not even the usual archive
of its own classes. So a throw-away node is run once with Java's recording on (JEP 514, `-XX:AOTCacheOutput`), and
the others start from the recording. Java checks by itself that it fits its build and these very jars, and goes on
without it where it does not. No failure here matters to anyone: the starts are as slow as before, that is all. What
fails on a busy machine may succeed later, so a failure counts for a day.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from pipeline.broker import checks, launch
from pipeline.broker.errors import BrokerError
from pipeline.broker.exclusive import exclusive
from pipeline.broker.node import JavaRuntime
from pipeline.broker.places import make_dir
from pipeline.broker.ports import choose_ports
from pipeline.broker.processes import end
from pipeline.broker.progress import Report, StepProgress, silent
from pipeline.broker.state import BrokerState, NodeState, new_cluster_id, node_dir

__all__ = ["with_quick_start"]

_WAIT_S = 300.0
_WRITE_S = 120.0
_FAILURE_COUNTS_S = 24 * 3600.0


def with_quick_start(
    runtime: JavaRuntime, root: Path, *, kafka_version: str, java_version: str, report: Report
) -> JavaRuntime:
    """The runtime with its cache, which is made in `root` if it is not there yet."""
    cache = root / f"quick-start-{java_version}.aot"
    if not _tried(cache):
        with exclusive(root / ".quick-start.lock", timeout_s=_WAIT_S, report=report):
            if not _tried(cache):
                report(StepProgress("preparing quick starts (once, takes some 20 s)"))
                _record(runtime, root / "recording", cache, kafka_version)
    usable = cache.stat().st_size > 0
    return replace(runtime, options=(f"-XX:AOTCache={cache}",)) if usable else runtime


def _tried(cache: Path) -> bool:
    """Whether it is there, or was tried in vain lately: an empty file says that, by its age."""
    if not cache.exists():
        return False
    found = cache.stat()
    return found.st_size > 0 or time.time() - found.st_mtime < _FAILURE_COUNTS_S


def _record(runtime: JavaRuntime, data_dir: Path, cache: Path, kafka_version: str) -> None:
    recording = data_dir / "recorded.aot"
    shutil.rmtree(data_dir, ignore_errors=True)  # an earlier attempt may have been killed
    try:
        checks.require_memory(starting=1, nodes=1)
        checks.require_disk(make_dir(data_dir))
        _run_once(
            replace(runtime, options=(f"-XX:AOTCacheOutput={recording}",)), runtime, data_dir, kafka_version
        )
        recording.replace(cache)
    except (BrokerError, OSError):
        cache.touch()
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _run_once(recorder: JavaRuntime, runtime: JavaRuntime, data_dir: Path, kafka_version: str) -> None:
    port, controller_port = choose_ports(2)
    node = NodeState(id=1, port=port, controller_port=controller_port)
    state = BrokerState.new(kafka_version, new_cluster_id(), (node,))
    state = launch.prepare(runtime, data_dir, state, state.nodes, silent)
    pids = launch.run(recorder, data_dir, state, state.nodes, silent)
    # The recording is written by the process as it ends, which takes several seconds.
    end({pids[node.id]: node_dir(data_dir, node.id)}, grace_s=_WRITE_S)

"""Makes later starts of Kafka faster with a cache of loaded and linked classes, created once after the installation.

Most of a start is the JVM loading 9,000 classes from 46 jars; the runtime of the wheel does not even have the usual
archive of its own classes. So a temporary node runs once while Java records its classes (JEP 514,
`-XX:AOTCacheOutput`), and later nodes use the recording. Java checks that the recording fits its build and these jars,
and continues without it if it does not. A failure here only means slow starts. It may succeed later on a less busy
machine, so it is retried after a day.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from pipeline.broker import checks, launch
from pipeline.broker.directories import exclusive, make_dir
from pipeline.broker.node import JavaRuntime
from pipeline.broker.ports import choose_ports
from pipeline.broker.processes import end
from pipeline.broker.reporting import BrokerError, Report, StepProgress, silent
from pipeline.broker.state import BrokerState, NodeState, new_cluster_id, node_dir

__all__ = ["with_quick_start"]

_WAIT_S = 300.0
_WRITE_S = 120.0
_FAILURE_COUNTS_S = 24 * 3600.0


def with_quick_start(
    runtime: JavaRuntime, root: Path, *, kafka_version: str, java_version: str, report: Report
) -> JavaRuntime:
    """The runtime with its cache, which is created in `root` if it does not exist."""
    cache = root / f"quick-start-{java_version}.aot"
    if not _tried(cache):
        with exclusive(root / ".quick-start.lock", timeout_s=_WAIT_S, report=report):
            if not _tried(cache):
                report(StepProgress("preparing quick starts (once, takes some 20 s)"))
                _record(runtime, root / "recording", cache, kafka_version)
    usable = cache.stat().st_size > 0
    return replace(runtime, options=(f"-XX:AOTCache={cache}",)) if usable else runtime


def _tried(cache: Path) -> bool:
    """Whether the cache exists or an attempt failed within a day. An empty file records the time of a failure."""
    if not cache.exists():
        return False
    found = cache.stat()
    return found.st_size > 0 or time.time() - found.st_mtime < _FAILURE_COUNTS_S


def _record(runtime: JavaRuntime, data_dir: Path, cache: Path, kafka_version: str) -> None:
    recording = data_dir / "recorded.aot"
    shutil.rmtree(data_dir, ignore_errors=True)  # left by an attempt that was killed
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
    # The process writes the recording when it exits, which takes several seconds.
    end({pids[node.id]: node_dir(data_dir, node.id)}, grace_s=_WRITE_S)

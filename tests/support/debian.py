"""Installs Debian packages that tests need and that pip does not have: podman and Chromium.

On a machine where that is not possible, the tests are skipped; with CI=true they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["UnavailableError", "give_up", "install_packages", "must"]

_INSTALL_S = 300.0


class UnavailableError(Exception):
    """Something that a test needs cannot be had here. Reaction: `give_up`, with this as the reason."""


def install_packages(packages: Sequence[str]) -> None:
    """Install the packages that are missing.

    Raises:
        UnavailableError: This is not root, not Debian, or apt cannot install a package.
    """
    names = ", ".join(packages)
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise UnavailableError(f"apt installs {names}, and this is no Debian")
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise UnavailableError(f"only root can install {', '.join(missing)}")
    what = f"apt cannot install {', '.join(missing)}"
    apt = ["apt-get", "--option=DPkg::Lock::Timeout=120"]  # another program may be installing
    must([*apt, "update"], timeout_s=_INSTALL_S, what=what)
    must([*apt, "install", "--yes", "--no-install-recommends", *missing], timeout_s=_INSTALL_S, what=what)


def give_up(reason: object) -> NoReturn:
    """Skip the test because this machine lacks something. On CI, fail it, because skips there are not read."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (skipped where CI is not set)", pytrace=False)
    pytest.skip(str(reason))


def must(command: Sequence[str | Path], *, timeout_s: float, what: str) -> None:
    """Run a step of the setup. Raises UnavailableError with the end of its output."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{what}: {error}") from error
    if done.returncode != 0:
        raise UnavailableError(f"{what}: exit code {done.returncode}: {done.stdout[-500:].strip()}")


def _installed(package: str) -> bool:
    done = subprocess.run(
        [shutil.which("dpkg-query") or "dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout == "installed"

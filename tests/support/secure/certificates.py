"""Certificates of a test: an authority, and a server certificate for 127.0.0.1, made with the command `openssl`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificates", "make_certificates"]

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """`authority`: what clients trust. `chain` and `key`: of the server. All are PEM files."""

    authority: Path
    chain: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make them in `directory`. They are valid for two days."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, authority_key = directory / "ca.pem", directory / "ca.key"
    chain, key = directory / "kafka.pem", directory / "kafka.key"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    _openssl(
        *("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=test authority"),
        *("-keyout", authority_key, "-out", authority),
    )
    _openssl(
        *("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", authority, "-CAkey", authority_key, "-keyout", key, "-out", chain),
    )
    return Certificates(authority, chain, key)


def _openssl(*arguments: str | Path) -> None:
    command = shutil.which("openssl")
    assert command is not None, "install openssl, which makes the certificates of these tests"
    done = subprocess.run(
        [command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr

"""Tests of the tests: each row breaks one rule of the protocol on purpose, and a named test must fail.

The package is copied once for all of them (`copied`, in conftest.py). For each row one piece of the copy's text is
replaced, the named tests run on it, and the text is put back. What is compiled is kept from row to row. A row whose
text is no longer found fails, too, so that the tables follow the code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Broken(NamedTuple):
    """`text` in `file` becomes `instead`; `test` (a node id, or -k expression behind a space) must fail."""

    rule: str
    file: str
    text: str
    instead: str
    test: str


def name_of(broken: Broken) -> str:
    """What the row is called in a report."""
    return broken.rule.replace(" ", "-")


def assert_noticed(broken: Broken, copied: Path) -> None:
    """Break the rule in the copy, run its test there, and put the rule back; fail when the test has passed."""
    source = copied / "pipeline" / broken.file
    text = source.read_text(encoding="utf-8")
    assert text.count(broken.text) == 1, f"{broken.file} no longer holds {broken.text!r}"
    _write(source, text.replace(broken.text, broken.instead), copied)
    try:
        done = _run(broken, copied)
    finally:
        _write(source, text, copied)
    assert done.returncode == 1, f"pytest said {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert " failed" in done.stdout


def _write(source: Path, text: str, copied: Path) -> None:
    """What is compiled of the file goes: it would count as up to date by second and size, which two rows may share."""
    source.write_text(text, encoding="utf-8")
    for compiled in copied.joinpath("compiled", *source.parent.parts[1:]).glob(f"{source.stem}.*.pyc"):
        compiled.unlink()


def _run(broken: Broken, copied: Path) -> subprocess.CompletedProcess[str]:
    path, _, chosen = broken.test.partition(" ")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            path,
            *(["-k", chosen] if chosen else []),
        ],
        cwd=copied,
        env={"PYTHONPATH": str(copied), "PATH": os.defpath, "PYTHONPYCACHEPREFIX": str(copied / "compiled")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

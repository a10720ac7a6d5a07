"""Tests of the tests: each row breaks one rule of the protocol on purpose, and a named test must fail.

The package is copied once for all of them (`copied`, in conftest.py). For each row one piece of the copy's text is
replaced, the named tests run on it, and the text is put back. What is compiled is kept from row to row. A row whose
text is no longer found fails, too, so that the tables follow the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.support.forks import Forks


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


class Copy:
    """The package and its tests, copied to `directory`, and what runs tests on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._forks = Forks(directory)

    def assert_noticed(self, broken: Broken) -> None:
        """Break the rule in the copy, run its test there, and put the rule back; fail when the test has passed."""
        source = self._directory / "pipeline" / broken.file
        text = source.read_text(encoding="utf-8")
        assert text.count(broken.text) == 1, f"{broken.file} no longer holds {broken.text!r}"
        self._write(source, text.replace(broken.text, broken.instead))
        try:
            code, said = self._run(broken.test)
        finally:
            self._write(source, text)
        assert code == 1, f"pytest said {code}:\n{said[-4000:]}"
        assert " failed" in said or "ERROR at setup" in said  # as where a fixture runs the processes

    def assert_passes(self, test: str) -> None:
        """Run a test, named as in `Broken`, with nothing broken."""
        code, said = self._run(test)
        assert code == 0, f"pytest said {code}:\n{said[-4000:]}"

    def close(self) -> None:
        """End what runs the tests."""
        self._forks.close()

    def _run(self, test: str) -> tuple[int, str]:
        path, _, chosen = test.partition(" ")
        return self._forks.pytest(
            "-x", "-q", "-p", "no:cacheprovider", path, *(["-k", chosen] if chosen else [])
        )

    def _write(self, source: Path, text: str) -> None:
        """What is compiled of the file goes: it would count as up to date by second and size, as two rows may be."""
        source.write_text(text, encoding="utf-8")
        compiled = self._directory.joinpath("compiled", *source.parent.parts[1:])
        for file in compiled.glob(f"{source.stem}.*.pyc"):
            file.unlink()

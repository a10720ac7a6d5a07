"""Tests of the tests: each row breaks one rule of the protocol on purpose, and a named test must fail.

The package is copied once for all rows (`copied`, in tests/broken/conftest.py). For each row, one fragment of the
copy's code is replaced, the named test runs on the copy, and the fragment is put back. Compiled files are kept from
row to row.

A row names the object that contains the fragment, so it follows a move or a rename of modules, classes and functions.
The fragment is compared without white space and comments, so it survives formatting. A row whose fragment does not
occur exactly once in its object fails.
"""

from __future__ import annotations

import inspect
import io
import tokenize
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pipeline
from tests.support.forks import Forks

_PACKAGE = Path(pipeline.__file__).parent


class Broken(NamedTuple):
    """In the code of `where`, `text` becomes `instead`; `test` must fail.

    `where`: a module, a class, a function or a property of the package. `test`: a file or node id of pytest, and an
    expression for `-k` after a blank. The first line of `instead` takes the indentation of `text`.
    """

    rule: str
    where: object
    text: str
    instead: str
    test: str


def name_of(broken: Broken) -> str:
    """The name of the row in a report."""
    return broken.rule.replace(" ", "-")


def place_of(where: object) -> tuple[Path, int, int]:
    """The file of an object, relative to the package, and its first and last line, from 1."""
    target: Any = where
    if isinstance(where, property):
        target = where.fget
    elif isinstance(where, cached_property):
        target = where.func
    if isinstance(target, ModuleType):
        source = Path(str(target.__file__))
        return source.relative_to(_PACKAGE), 1, len(source.read_text(encoding="utf-8").splitlines())
    target = inspect.unwrap(target)
    lines, first = inspect.getsourcelines(target)
    return Path(str(inspect.getsourcefile(target))).relative_to(_PACKAGE), first, first + len(lines) - 1


def replaced(source: str, first: int, last: int, broken: Broken) -> str:
    """The source with the row's fragment replaced. Raises AssertionError unless it occurs once in these lines."""
    dense, places = _dense(source, first, last)
    wanted = _without_spaces(broken.text)
    count = dense.count(wanted)
    assert count == 1, f"{broken.rule!r}: {broken.where} contains {count} times {broken.text!r}"
    start = dense.index(wanted)
    begin, end = places[start], places[start + len(wanted) - 1] + 1
    return source[:begin] + broken.instead.strip(" \n") + source[end:]


def _dense(source: str, first: int, last: int) -> tuple[str, list[int]]:
    """The characters of these lines without white space and comments, and the place of each in the source."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    comments = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row = begins[token.start[0] - 1]
            comments.update(range(row + token.start[1], row + token.end[1]))
    kept = [
        (source[place], place)
        for place in range(begins[first - 1], begins[last])
        if place not in comments and not source[place].isspace()
    ]
    return "".join(character for character, _ in kept), [place for _, place in kept]


def _without_spaces(fragment: str) -> str:
    """A fragment need not be a complete statement, so a comment is found by the two blanks before it."""
    code = "\n".join(line.partition("  # ")[0] for line in fragment.split("\n"))
    return "".join(code.split())


class Copy:
    """The package and its tests, copied to `directory`, and the process that runs tests on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._forks = Forks(directory)

    def assert_noticed(self, broken: Broken) -> None:
        """Break the rule in the copy, run its test there, and put the rule back; fail if the test has passed."""
        file, first, last = place_of(broken.where)
        source = self._directory / "pipeline" / file
        text = source.read_text(encoding="utf-8")
        self._write(source, replaced(text, first, last, broken))
        try:
            code, said = self._run(broken.test)
        finally:
            self._write(source, text)
        assert code == 1, f"pytest said {code}:\n{said[-4000:]}"
        assert " failed" in said or "ERROR at setup" in said  # as when a fixture runs the processes

    def assert_passes(self, test: str) -> None:
        """Run a test, named as in `Broken`, with nothing broken."""
        code, said = self._run(test)
        assert code == 0, f"pytest said {code}:\n{said[-4000:]}"

    def close(self) -> None:
        """End the process that runs the tests."""
        self._forks.close()

    def _run(self, test: str) -> tuple[int, str]:
        path, _, chosen = test.partition(" ")
        return self._forks.pytest(
            # With other random examples at each run, a test might once not find what a row has broken.
            *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", path),
            *(["-k", chosen] if chosen else []),
        )

    def _write(self, source: Path, text: str) -> None:
        """Write the file and delete its compiled form, whose size and time in seconds could still match."""
        source.write_text(text, encoding="utf-8")
        compiled = self._directory.joinpath("compiled", *source.parent.parts[1:])
        for file in compiled.glob(f"{source.stem}.*.pyc"):
            file.unlink()

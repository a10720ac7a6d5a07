"""The style of the documents: the rules that a program can check."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

from tests.support.pages import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "examples" / "README.md",
    ]
)
WIDTH = 100
# Words that these documents replace by others: fix, continue, forever, the operator, skip, the number.
AVOIDED = re.compile(
    r"\b(mend(s|ed|ing)?|goes on|go on|for ever|whoever|somebody|nobody|pass(es|ed)? over|how-manieth)\b",
    re.IGNORECASE,
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def _prose(page: Path) -> list[tuple[int, str]]:
    """The lines outside of code blocks, with their numbers."""
    lines = []
    code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            lines.append((number, line))
    return lines


@each_page
def test_prose_wraps_at_100_columns(page: Path) -> None:
    """Long lines make a change to one word look like a change to a paragraph."""
    long = [
        number
        for number, line in _prose(page)
        if len(line) > WIDTH and " " in line.strip() and not line.lstrip().startswith("|")
    ]
    assert long == []


@each_page
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    """A reader searches for the usual word, and reads the other one twice."""
    found = [(number, m.group()) for number, line in _prose(page) for m in AVOIDED.finditer(line)]
    assert found == []


def _avoided_in(module: Path) -> list[tuple[int, str]]:
    """The avoided words in the comments, docstrings and other strings of a module, with their lines."""
    text = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    with module.open("rb") as source:
        tokens = [token for token in tokenize.tokenize(source.readline) if token.type in text]
    return [(token.start[0], m.group()) for token in tokens for m in AVOIDED.finditer(token.string)]


def test_modules_use_the_words_of_the_field() -> None:
    """Errors, hints, help texts and docstrings are read as often as the documents."""
    package = ROOT / "pipeline"
    found = {str(path.relative_to(package)): _avoided_in(path) for path in package.rglob("*.py")}
    assert {name: words for name, words in found.items() if words} == {}


def _avoided_in_docstrings(module: Path) -> list[tuple[int, str]]:
    """The avoided words in the docstrings of a module, each with the line of the function or class."""
    return [
        (getattr(node, "lineno", 1), m.group())
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for m in AVOIDED.finditer(ast.get_docstring(node) or "")
    ]


def test_tests_use_the_words_of_the_field() -> None:
    """A test's docstring is what a reader sees when the test fails."""
    found = {
        str(path.relative_to(ROOT)): _avoided_in_docstrings(path) for path in (ROOT / "tests").rglob("*.py")
    }
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("page", sorted((ROOT / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_runbooks_use_the_words_of_the_field(page: Path) -> None:
    """A runbook is read under pressure."""
    assert [(number, m.group()) for number, line in _prose(page) for m in AVOIDED.finditer(line)] == []

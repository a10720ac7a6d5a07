"""How a row finds the code that it breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
import pipeline.core.membership
import pipeline.core.notes
import pipeline.core.ring
from tests.support.breaking import Broken, place_of, replaced

SOURCE = """def total(values):
    result = 0
    for value in values:  # in any order
        result += scaled(
            value,
        )
    return result


def other(values):
    return scaled(values)
"""


def _row(text: str, instead: str) -> Broken:
    return Broken("a rule", None, text, instead, "a test")


def test_a_fragment_is_found_in_another_format() -> None:
    """A formatter that joins or splits lines must not make a row useless."""
    broken = replaced(
        SOURCE, 1, 7, _row("        result += scaled(value,)\n    return result\n", "        return 0\n")
    )
    assert "        return 0\n\n\ndef other" in broken


def test_a_comment_in_the_code_does_not_hide_a_fragment() -> None:
    """Comments are rewritten more often than code."""
    broken = replaced(
        SOURCE, 1, 7, _row("    for value in values:\n        result += scaled(", "    if scaled(")
    )
    assert "    result = 0\n    if scaled(\n            value," in broken


@pytest.mark.parametrize("text", ["scaled(", "missing("])
def test_a_fragment_that_is_not_there_once_fails(text: str) -> None:
    """A row that breaks another place than it says, or none, would prove nothing."""
    with pytest.raises(AssertionError, match="a rule"):
        replaced(SOURCE, 1, 11, _row(text, "0"))


def test_only_the_named_object_is_searched() -> None:
    """The same fragment in another function is another rule."""
    assert replaced(SOURCE, 10, 11, _row("scaled(values)", "0")).endswith("    return 0\n")


@pytest.mark.parametrize(
    ("where", "first_line"),
    [
        (pipeline.core.ring, '"""The ring'),
        (pipeline.core.ring.Ring, "class Ring"),
        (pipeline.core.ring.Ring.walk, "    def walk("),
        (pipeline.core.notes.Note.key, "    @property"),
        (pipeline.core.membership.Roster._workers, "    @cached_property"),
    ],
    ids=["a module", "a class", "a method", "a property", "a cached property"],
)
def test_an_object_is_found_in_its_file(where: object, first_line: str) -> None:
    """Modules, classes, methods and both kinds of properties have rows."""
    file, first, last = place_of(where)
    text = (Path(pipeline.__file__).parent / file).read_text(encoding="utf-8").splitlines()
    assert text[first - 1].startswith(first_line)
    assert last > first

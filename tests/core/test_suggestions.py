"""What a mistyped name is answered with: the same form for settings, topics, fields, runbooks and apps."""

from __future__ import annotations

import ast
import re
from itertools import pairwise

from pipeline.core.suggestions import are, closest, counted, did_you_mean, no_topic
from tests.support.pages import ROOT

KNOWN = ("flights", "carrier-delays", "tail-hops")
PLURAL = re.compile(
    r" ((?:more |live |open |dead |input |journal |sampled |assigned )*(?:tasks|records|partitions|groups|workers|rows|"
    r"entries|keys|files|states|outputs|topics|events|kills|commits|checkpoints|columns|fields|lines|replicas|brokers|"
    r"attempts|objects|letters))\b(?!/)"
)
# Constants, and counts of which one is another message.
ALWAYS_MANY = re.compile(r"^(_?[A-Z_]+|len\([A-Z_]+\)|copy\.before)$")


def test_the_most_similar_name_is_suggested() -> None:
    """One letter too few is the usual mistake."""
    assert did_you_mean("flight", KNOWN) == "; did you mean 'flights'?"
    assert did_you_mean("carier-delay", iter(KNOWN)) == "; did you mean 'carrier-delays'?"


def test_a_name_that_is_like_no_other_gets_no_suggestion() -> None:
    """A suggestion that is not similar to the input misleads."""
    assert did_you_mean("xyz", KNOWN) == ""
    assert did_you_mean("flights", ()) == ""


def test_any_name_can_be_asked_for() -> None:
    """A module with one app: that app is meant, whatever was typed."""
    assert closest("xyz", ["app"]) is None
    assert closest("xyz", ["app"], similarity=0) == "app"


def test_the_error_for_a_missing_topic_says_how_to_declare_it() -> None:
    """Every command that takes a topic gives the same answer."""
    error = no_topic("flight", KNOWN)
    assert error.message == "there is no topic 'flight'; did you mean 'flights'?"
    assert error.hint == (
        "correct the name. If it is correct, declare it in topics/flight.yaml and run: pipeline topics apply"
    )
    assert no_topic("xyz", KNOWN).hint == "declare it in topics/xyz.yaml and run: pipeline topics apply"


def test_counts_agree_with_their_nouns() -> None:
    """`1 tasks are replayed` looks like an error of the program."""
    assert [counted(count, "entry") for count in (0, 1, 1_000)] == ["0 entries", "1 entry", "1,000 entries"]
    assert [counted(count, "day") for count in (1, 2)] == ["1 day", "2 days"]
    assert [are(count) for count in (0, 1, 2)] == ["are", "is", "are"]


def test_every_message_counts_with_the_same_function() -> None:
    """A plural that is written after a count is wrong for one."""
    found = [
        f"{path.relative_to(ROOT)}:{count.lineno}: {{{ast.unparse(count.value)}}} {written[1]}"
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
        for text in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(text, ast.JoinedStr)
        for count, after in pairwise(text.values)
        if isinstance(count, ast.FormattedValue)
        and isinstance(after, ast.Constant)
        and isinstance(after.value, str)
        if (written := PLURAL.match(after.value)) and not ALWAYS_MANY.search(ast.unparse(count.value))
    ]
    assert found == []

"""What a mistyped name is answered with: the same form for settings, topics, fields, runbooks and apps."""

from __future__ import annotations

from pipeline.core.suggestions import closest, did_you_mean, no_topic

KNOWN = ("flights", "carrier-delays", "tail-hops")


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

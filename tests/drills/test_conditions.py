"""Abort conditions, as an operator types them."""

from __future__ import annotations

import pytest

from pipeline.drills.conditions import parse_conditions
from pipeline.errors import InputError


@pytest.mark.parametrize(
    ("text", "values", "fired"),
    [
        ("lag > 10", {"lag": 10.0}, []),
        ("lag > 10", {"lag": 11.0}, ["lag > 10"]),
        ("lag>=10", {"lag": 10.0}, ["lag >= 10"]),
        ("live_tasks < 3", {"live_tasks": 2.0}, ["live_tasks < 3"]),
        ("live_tasks <= 3", {"live_tasks": 4.0}, []),
        ("failed_tasks == 1", {"failed_tasks": 1.0}, ["failed_tasks == 1"]),
        ("lag > 10 or elapsed_s > 1.5", {"lag": 0.0, "elapsed_s": 2.0}, ["elapsed_s > 1.5"]),
        ("elapsed_s > 0", {}, []),
    ],
)
def test_a_condition_compares_a_measure_with_a_number(
    text: str, values: dict[str, float], fired: list[str]
) -> None:
    """A measure that is not known yet must not abort a drill before its fault."""
    assert [str(each) for each in parse_conditions(text) if each.holds(values)] == fired


@pytest.mark.parametrize(
    "text", ["", "lag", "lag > many", "lag > 1 and elapsed_s > 2", "lag > -1", "lag > 1 or"]
)
def test_a_condition_that_cannot_be_understood_is_refused(text: str) -> None:
    """A condition that is never true protects nothing."""
    with pytest.raises(InputError, match="cannot be understood"):
        parse_conditions(text)


def test_an_unknown_measure_is_named_with_a_similar_one() -> None:
    """The message lists what can be measured."""
    with pytest.raises(InputError, match="there is no measure 'lags'; did you mean 'lag'") as error:
        parse_conditions("lags > 1")
    assert "unaffected_pause_s" in str(error.value)

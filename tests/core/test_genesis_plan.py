"""The table of `plan_genesis`, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.core.recovery import GenesisPlan, plan_genesis
from pipeline.errors import FatalTaskError
from tests.support.core.recovery_case import assert_helpful

GROUP = "group app/main"


def genesis(
    *, exists: bool = True, with_genesis: int = 0, written: int = 0, traces: Sequence[str] = ()
) -> GenesisPlan:
    return plan_genesis(
        GROUP, journal_exists=exists, with_genesis=with_genesis, written=written, partitions=4, traces=traces
    )


def test_genesis_of_a_new_group_is_created_row_1() -> None:
    """Nothing anywhere speaks of the group: it is new."""
    assert genesis(exists=False) is GenesisPlan.CREATE


@pytest.mark.parametrize("trace", ["a local state of task app/main/2", "committed offsets of group app.main"])
def test_genesis_is_refused_when_the_journal_topic_is_gone_row_2(trace: str) -> None:
    """A lost journal must never look like a new app: all its results would be produced again."""
    with pytest.raises(FatalTaskError) as caught:
        genesis(exists=False, traces=[trace])
    assert_helpful(caught.value, GROUP, trace, "its journal topic is gone")


@pytest.mark.parametrize("traces", [[], ["a local state"]])
def test_genesis_is_present_row_3(traces: list[str]) -> None:
    """The usual start; traces are what one expects then."""
    assert genesis(with_genesis=4, written=4, traces=traces) is GenesisPlan.PRESENT


def test_genesis_is_written_after_a_crash_before_it_row_4() -> None:
    """The topic was created and nothing else happened: going on is safe."""
    assert genesis() is GenesisPlan.WRITE


def test_genesis_is_refused_when_the_journal_was_emptied_row_5() -> None:
    """A journal topic that was deleted and created again has lost its entries, too."""
    with pytest.raises(FatalTaskError) as caught:
        genesis(traces=["a local state of task app/main/2"])
    assert_helpful(caught.value, GROUP, "a local state of task app/main/2", "its journal is empty")


@pytest.mark.parametrize(
    ("with_genesis", "written", "missing"),
    [(3, 3, "1 of 4"), (3, 4, "1 of 4"), (0, 1, "4 of 4"), (0, 4, "4 of 4"), (1, 1, "3 of 4")],
)
@pytest.mark.parametrize("traces", [[], ["a local state"]])
def test_genesis_is_refused_when_some_partitions_have_none_row_6(
    with_genesis: int, written: int, missing: str, traces: list[str]
) -> None:
    """Genesis of all partitions is one transaction, so a part of it is no crash but a loss."""
    with pytest.raises(FatalTaskError) as caught:
        genesis(with_genesis=with_genesis, written=written, traces=traces)
    assert_helpful(caught.value, GROUP, f"{missing} journal partitions without a genesis entry")

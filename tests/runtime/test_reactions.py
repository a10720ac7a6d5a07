"""What a worker does about errors: every row of the table in `pipeline.runtime.reactions`."""

from __future__ import annotations

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import (
    AbortableError,
    CheckpointStoreError,
    ConfigError,
    DamagedStateError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RetriableError,
    StaleReadError,
    SupersededError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.runtime.reactions import MAX_FENCES, MAX_STALE, Reaction, Reactions

TASK = TaskId("orders", "main", 3)
OTHER = TaskId("orders", "main", 4)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("error", "running", "stopping"),
    [
        (SupersededError, Reaction.RESTORE, Reaction.YIELD),
        (FencedError, Reaction.FIND_OWNER, Reaction.YIELD),
        (DamagedStateError, Reaction.SET_ASIDE, Reaction.FAIL),
        (UnreachableError, Reaction.RESTORE_LATER, Reaction.FAIL),
        (UnknownOutcomeError, Reaction.RESTORE_LATER, Reaction.FAIL),
        (AbortableError, Reaction.RESTORE_LATER, Reaction.FAIL),
        (RetriableError, Reaction.RESTORE_LATER, Reaction.FAIL),
        (CheckpointStoreError, Reaction.RESTORE_LATER, Reaction.FAIL),
        (FatalTaskError, Reaction.FAIL, Reaction.FAIL),
        (ConfigError, Reaction.FAIL, Reaction.FAIL),
    ],
)
def test_each_error_has_its_reaction(
    error: type[PipelineError], running: Reaction, stopping: Reaction, live: bool
) -> None:
    """A wrong reaction drops a task that could continue, or continues one that must stop."""
    assert Reactions().to(error("why"), TASK, live=live, stopping=False) is running
    assert Reactions().to(error("why"), TASK, live=live, stopping=True) is stopping


def test_an_input_that_stays_too_short_fails_its_task() -> None:
    """One broker may answer like a leader that it no longer is; but records that are lost do not come back."""
    reactions = Reactions()
    for _ in range(MAX_STALE):
        error = StaleReadError("numbers[0]: ends below position 6")
        assert reactions.to(error, TASK, live=True, stopping=False) is Reaction.RESTORE_LATER
    further = StaleReadError("numbers[0]: ends below position 7")
    assert reactions.to(further, TASK, live=True, stopping=False) is Reaction.RESTORE_LATER
    for _ in range(MAX_STALE - 1):
        assert reactions.to(further, TASK, live=True, stopping=False) is Reaction.RESTORE_LATER
    assert reactions.to(further, TASK, live=True, stopping=False) is Reaction.FAIL


def test_a_state_that_is_damaged_again_fails_its_task_alone() -> None:
    """A disk that damages one state may have spared another."""
    reactions = Reactions()
    damaged = DamagedStateError("a block")
    assert reactions.to(damaged, TASK, live=True, stopping=False) is Reaction.SET_ASIDE
    assert reactions.to(damaged, TASK, live=True, stopping=False) is Reaction.FAIL
    assert reactions.to(damaged, OTHER, live=True, stopping=False) is Reaction.SET_ASIDE


def test_fences_are_counted_while_a_task_is_restored_until_it_is_known_whose_it_is() -> None:
    """Two workers that fence each other repeatedly are detected; a single lost task is not an error."""
    reactions = Reactions()
    fenced = FencedError("a newer producer")

    def restored() -> Reaction:
        return reactions.to(fenced, TASK, live=False, stopping=False)

    assert [restored() for _ in range(MAX_FENCES)] == [Reaction.FIND_OWNER] * MAX_FENCES
    assert restored() is Reaction.FAIL
    reactions.settled(TASK)
    live = [reactions.to(fenced, TASK, live=True, stopping=False) for _ in range(2 * MAX_FENCES)]
    assert set(live) == {Reaction.FIND_OWNER}

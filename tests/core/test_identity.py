"""When a task may continue its history: `check_identity`."""

from __future__ import annotations

import re

import msgspec
import pytest

from pipeline.core.journal_format import Identity, InputFacts
from pipeline.core.recovery import check_identity
from pipeline.errors import ConfigError
from tests.support.core.recovery_case import IDENTITY, TASK


def changed(**fields: object) -> Identity:
    return msgspec.structs.replace(IDENTITY, **fields)


@pytest.mark.parametrize(
    "now",
    [
        IDENTITY,
        changed(inputs={**IDENTITY.inputs, "third": InputFacts("id-3", 4)}),
        changed(tables={**IDENTITY.tables, "v": "int->json:int"}),
        changed(topology="another handler"),
    ],
    ids=["equal", "another input", "another table", "topology"],
)
def test_a_history_continues_when_nothing_it_rests_on_changed(now: Identity) -> None:
    """Apps grow: a new table or input needs no ceremony."""
    check_identity(TASK, IDENTITY, now)


@pytest.mark.parametrize(
    ("now", "facts"),
    [
        (changed(cluster_id="staging"), ["cluster", "staging"]),
        (changed(partitioner="crc32"), ["murmur2_random", "crc32"]),
        (changed(inputs={"in": InputFacts("id-1", 4)}), ["has read more"]),
        (
            changed(inputs={**IDENTITY.inputs, "in": InputFacts("id-9", 4)}),
            ["topic in was deleted and created again"],
        ),
        (
            changed(inputs={**IDENTITY.inputs, "in": InputFacts("id-1", 6)}),
            ["topic in had 4 partitions and has 6"],
        ),
        (changed(tables={"t": "str->json:int"}), ["table u has state", "no longer declares it"]),
        (
            changed(tables={**IDENTITY.tables, "t": "str->json:str"}),
            ["schema of table t changed", "was str->json:int", "now str->json:str"],
        ),
    ],
    ids=["cluster", "partitioner", "input gone", "recreated", "partitions", "table gone", "schema"],
)
def test_a_history_is_not_continued_on_other_ground(now: Identity, facts: list[str]) -> None:
    """Each of these would make results wrong without a single error."""
    with pytest.raises(ConfigError) as caught:
        check_identity(TASK, IDENTITY, now)
    assert all(re.search(re.escape(fact), caught.value.message) for fact in [TASK, *facts])


def test_a_changed_schema_names_the_cost_of_a_reset() -> None:
    """An operator with only the wheel has no other document, and rows that a reset deletes are gone."""
    with pytest.raises(ConfigError) as caught:
        check_identity(TASK, IDENTITY, changed(tables={**IDENTITY.tables, "t": "str->json:str"}))
    assert "deletes the group's table rows and processes its input again" in (caught.value.hint or "")
    assert "docs/" not in (caught.value.hint or "")


def test_a_refused_history_says_what_to_do() -> None:
    """An error that stops a deployment must name the way on."""
    for now in (changed(cluster_id="x"), changed(partitioner="x"), changed(tables={}), changed(inputs={})):
        with pytest.raises(ConfigError) as caught:
            check_identity(TASK, IDENTITY, now)
        assert caught.value.hint


def test_another_number_of_tasks_is_refused() -> None:
    """The history of a task contains the rows of its partitions. Format 1 has one task for each partition."""
    check_identity(TASK, IDENTITY, changed(tasks=4))
    check_identity(TASK, changed(tasks=2), changed(tasks=2))
    for before, now in ((IDENTITY, changed(tasks=2)), (changed(tasks=2), changed(tasks=4))):
        with pytest.raises(
            ConfigError, match=r"belongs to a group of \d tasks, and this is one of"
        ) as refused:
            check_identity(TASK, before, now)
        assert "the number never changes" in str(refused.value.hint)

"""When changes may be written as sets: the table of `as_sets`, and what may be copied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from pipeline.core.row_sets import Change, Gone, Sets, TableFacts, as_sets, fits, versions
from pipeline.databases.postgres.kinds import kind_of

of = partial(kind_of, modifier=-1, element="", deterministic=True, unicode=True, indexed=False)
PLAIN = TableFacts({"k": of("text"), "v": of("int8")}, {}, frozenset({"k"}), True, True, True)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def sets(*changes: Any, **other: Any) -> Sets | None:
    return as_sets(changes, ("k", "v"), ("k",), replace(PLAIN, **other))


@pytest.mark.parametrize(
    ("changes", "deletes", "rows"),
    [
        ([("a", 1), ("b", 2)], [], [("a", 1), ("b", 2)]),
        ([("a", 1), ("b", 2), ("a", 3)], [], [("b", 2), ("a", 3)]),
        ([("a", 1), Gone(("a",))], [("a",)], []),
        ([Gone(("a",)), ("a", 1)], [("a",)], [("a", 1)]),
        ([Gone(("a",)), Gone(("a",))], [("a",)], []),
        ([("a", None), ("a", 1)], [], [("a", 1)]),
    ],
)
def test_a_plain_table_is_written_in_sets(changes: Any, deletes: Any, rows: Any) -> None:
    """The usual case must stay fast, and a deleted row must not lend its other columns to a new one."""
    assert sets(*changes) == Sets(deletes, rows)


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ([("a", 1), (5, 1)], {}),
        ([("a", 1), (None, 1)], {}),
        ([("a", 1), ("a", 2**63), ("a", 2)], {}),
        ([("a", 1), ("a", "2"), ("a", 2)], {}),
        ([("a", 1), ("a", True), ("a", 2)], {}),
        ([("a", None), ("a", 1)], {"required": frozenset({"k", "v"})}),
        ([("a", 1), ("a", 2)], {"unchecked": False}),
        ([("a", 1), ("a", 2)], {"independent": False}),
        ([Gone(("a",)), ("b", 2)], {"independent": False}),
        ([("a", 1)], {"in_sets": False}),
        ([("a", 1)], {"kinds": {"k": of("bpchar"), "v": of("int8")}}),
        ([("a", 1), ("a", 2)], {"kinds": {"k": of("text"), "v": of("json")}}),
    ],
)
def test_what_a_set_might_change_is_written_in_order(changes: Any, other: dict[str, Any]) -> None:
    """The database must see each row that it might refuse, and compare keys that Python compares otherwise."""
    assert sets(*changes, **other) is None


def test_nothing_is_known_of_a_table_without_facts() -> None:
    """Then only the order is right."""
    assert as_sets([("a", 1)], ("k", "v"), ("k",), None) is None
    assert not fits([("a", 1)], ("k", "v"), None)


@pytest.mark.parametrize(
    ("name", "modifier", "value", "takes", "sure"),
    [
        ("text", -1, "é", True, True),
        ("text", -1, "nul\0", True, False),
        ("text", -1, "\ud800", True, False),
        ("text", -1, True, False, False),
        ("text", -1, 1.0, False, False),
        ("varchar", 7, "abc", True, None),
        ("int4", -1, 2**31 - 1, True, True),
        ("int4", -1, 2**31, True, False),
        ("int4", -1, 1.0, False, False),
        ("numeric", -1, Decimal("1.5"), True, True),
        ("numeric", -1, Decimal("NaN"), True, False),
        ("numeric", -1, 0.1, False, False),
        ("numeric", ((4 << 16) | 2) + 4, Decimal("98.9"), True, True),
        ("numeric", ((4 << 16) | 2) + 4, Decimal("99.5"), True, False),
        ("timestamp", -1, NOON, False, True),
        ("timestamp", -1, NOON.replace(tzinfo=None), True, True),
        ("timestamptz", -1, NOON, True, True),
        ("jsonb", -1, {"a": 1}, True, None),
        ("json", -1, {"a": 1}, False, None),
        ("bool", -1, 1, False, True),
    ],
)
def test_what_is_known_of_a_type(
    name: str, modifier: int, value: Any, takes: bool, sure: bool | None
) -> None:
    """A copy reads text; a parameter is converted: True is 't' in the one and 'true' in the other."""
    kind = of(name, modifier=modifier)
    assert fits([(value,)], ("v",), replace(PLAIN, kinds={"v": kind})) is takes
    if takes or kind.sure is None:
        assert (kind.sure([value]) if kind.sure is not None else None) is sure


def test_instants_are_compared_in_utc_only() -> None:
    """Those of two zones may be one instant and no equals, around the end of summer time."""
    kind = of("timestamptz")
    assert kind.comparable([NOON, NOON])
    assert not kind.comparable([NOON, NOON.astimezone(timezone(timedelta(hours=1)))])


def test_lists_are_copied_when_their_elements_are() -> None:
    """A list of floats would be rounded on its way to numeric[]."""
    kind = kind_of("_int4", -1, "int4", deterministic=True, unicode=True, indexed=False)
    assert kind.readable([[1, 2], [], "{3}"])
    assert not kind.readable([[1, 2.0]])
    assert not kind.readable([[1, None]])


def test_versions_of_a_row_are_counted_as_its_changes_meet_them() -> None:
    """The cost of a transaction grows with their square."""
    changes: list[Change] = [*(("a", n) for n in range(30)), ("b", 1), Gone(("b",))]
    assert versions(changes, ("k", "v"), ("k",)) == (30 * 30 + 2 * 2) / 32
    assert versions([([1], 1)] * 9, ("k", "v"), ("k",)) == 1.0
    assert versions([], (), ("k",)) == 0.0

"""A table is a mapping: whatever is open, sealed, applied, undone or evicted behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.table import RuntimeTable, table_prefix
from tests.support.tables import Rig, table_def


class Total(msgspec.Struct, frozen=True):
    count: int = 0


class Basket(msgspec.Struct):
    items: list[str]


@pytest.fixture
def rig() -> Rig:
    return Rig(table_def())


@pytest.fixture
def table(rig: Rig) -> RuntimeTable[str, int]:
    return rig.table


# Reading and writing


def test_a_handler_sees_its_own_writes(table: RuntimeTable[str, int]) -> None:
    """Before any commit."""
    table["a"] = 1
    assert (table["a"], table.get("a"), "a" in table, list(table.items())) == (1, 1, True, [("a", 1)])


def test_an_absent_key_is_remembered_as_absent(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """A miss costs a disk read once; a later write must still be seen."""
    assert table.get("a", 9) == 9
    table["a"] = 1
    assert table.get("a", 9) == 1


def test_none_is_a_value_where_the_type_allows_it() -> None:
    """`in` tells a stored None from an absent key, before and after it went to disk."""
    rig = Rig(table_def(value=int | None))
    table: RuntimeTable[str, int | None] = rig.table
    table["a"] = None
    for _ in range(2):
        assert "a" in table
        assert table["a"] is None
        assert table.get("a", 5) is None
        assert table.get_many(["a", "b"]) == {"a": None}
        assert list(table.items()) == [("a", None)]
        rig.commit(cache_bytes=1)
        table.trim(1)
    del table["a"]
    assert "a" not in table


def test_many_keys_are_read_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read once, those in memory not at all; duplicates are one key."""
    rig = Rig(table_def())
    rig.table.update({"disk": 1, "sealed": 2})
    rig.commit()
    rig.table.trim(1)
    rig.table["sealed"] = 3
    rig.keep_record()
    rig.seal()
    rig.table["open"] = 4
    calls: list[list[bytes]] = []
    real = rig.store.get_many

    def get_many(full_keys: Sequence[bytes]) -> list[bytes | None]:
        calls.append(list(full_keys))
        return real(full_keys)

    monkeypatch.setattr(rig.store, "get_many", get_many)
    found = rig.table.get_many(["open", "disk", "absent", "sealed", "disk", "absent"])
    assert found == {"open": 4, "disk": 1, "sealed": 3}
    assert list(found) == ["open", "disk", "sealed"]
    assert calls == [[table_prefix("totals") + b"disk", table_prefix("totals") + b"absent"]]
    assert rig.table.get_many([]) == {}


def test_a_refused_value_leaves_the_old_one(table: RuntimeTable[str, int]) -> None:
    """A handler that catches the error continues as if it had not made the call."""
    table["a"] = 1
    with pytest.raises(TypeError, match="expected int, got str"):
        table["a"] = "2"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        table["b"] = None  # type: ignore[assignment]
    assert list(table.items()) == [("a", 1)]
    assert "b" not in table


@pytest.mark.parametrize("key", [5, None, b"a", ("a",)], ids=repr)
def test_a_refused_key_leaves_nothing(rig: Rig, key: Any) -> None:
    """Neither a row nor an entry in the commit."""
    for attempt in (
        lambda: rig.table.__setitem__(key, 1),
        lambda: rig.table.get(key),
        lambda: rig.table.__delitem__(key),
        lambda: key in rig.table,
        lambda: rig.table.get_many([key]),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert (rig.overlay.undo, rig.table.take_writes()) == ([], {})


def test_keys_that_python_takes_for_equal_are_one_row() -> None:
    """1 == True == 1.0: whichever comes first, there is never a second row and never a wrong key on disk."""
    for first in (1, True):
        rig = Rig(table_def(key=int))
        rig.table[first] = 10
        rig.table[True] += 1
        rig.table[1] += 1
        assert list(rig.table.items()) == [(1, 12)]
        rig.commit()
        assert [key for key, _ in rig.store.scan(b"")] == [table_prefix("totals") + bytes([0] * 7 + [1])]


def test_a_float_never_becomes_a_new_key() -> None:
    """It is refused, or, where the equal int is in memory, means that."""
    rig = Rig(table_def(key=int))
    with pytest.raises(TypeError):
        rig.table[1.0] = 10
    rig.table[1] = 10
    rig.table[1.0] = 11
    assert list(rig.table.items()) == [(1, 11)]


def test_what_is_read_never_aliases_what_is_stored() -> None:
    """Changing it without assigning it changes nothing, wherever it was read from."""
    rig = Rig(table_def(value=Basket))
    table: RuntimeTable[str, Basket] = rig.table
    mine = Basket(["milk"])
    table["a"] = mine
    reads: list[Callable[[], Basket | None]] = [
        lambda: table["a"],
        lambda: table.get("a"),
        lambda: table.get("a", Basket([])),
        lambda: table.get_many(["a"])["a"],
        lambda: next(table.items())[1],
    ]
    for _ in range(2):
        mine.items.append("eggs")
        for read in reads:
            found = read()
            assert found is not None
            assert found.items == ["milk"]
            found.items.append("bread")
        rig.commit()
    assert table["a"].items == ["milk"]


def test_immutable_values_are_shared() -> None:
    """Reading one costs no decoding."""
    rig = Rig(table_def(value=Total))
    rig.table["a"] = Total(3)
    assert rig.table["a"] is rig.table["a"]


def test_a_default_is_given_back_as_it_is(table: RuntimeTable[str, int]) -> None:
    """And is not stored."""
    default = ["anything"]
    assert table.get("a", default) is default
    assert "a" not in table


# Undo


def test_undo_brings_back_what_a_record_found(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """A poison record leaves no trace, whatever order it wrote in and wherever the values lay."""
    table.update({"disk": 1, "sealed": 1})
    rig.commit()
    table["sealed"] = 2
    rig.keep_record()
    rig.seal()
    table["open"] = 3
    del table["disk"]
    rig.keep_record()
    before = dict(table.items())

    table["disk"] = 9
    del table["disk"]
    table["new"] = 9
    del table["new"]
    table["new"] = 8
    del table["open"]
    table["open"] = 7
    del table["sealed"]
    table.trim(1)
    rig.undo_record()

    assert dict(table.items()) == before == {"sealed": 2, "open": 3}
    assert {key: table.get(key) for key in ("disk", "sealed", "open", "new")} == {
        "disk": None,
        "sealed": 2,
        "open": 3,
        "new": None,
    }
    assert table.take_writes() == {
        table_prefix("totals") + b"open": b"3",
        table_prefix("totals") + b"disk": None,
    }


def test_undo_of_a_refused_delete_takes_nothing_back(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """`del` of an absent key raises and writes nothing."""
    with pytest.raises(KeyError, match="a"):
        del table["a"]
    assert rig.overlay.undo == []
    rig.undo_record()
    assert table.take_writes() == {}


def test_pop_deletes_a_value_and_returns_it_or_the_default(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """As of a dict: the row of a key that may not exist is deleted in one call."""
    table["a"] = 1
    assert (table.pop("a"), table.pop("a", None), table.pop("a", 7)) == (1, None, 7)
    with pytest.raises(KeyError, match="a"):
        table.pop("a")
    assert "a" not in table
    rig.overlay.take_back()
    assert "a" not in table


def test_undo_of_all_writes_leaves_an_empty_commit(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """A skipped record must not write the old values again."""
    table["a"] = 1
    rig.undo_record()
    assert table.take_writes() == {}


# Commit


def test_a_sealed_overlay_does_not_change(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """It is being published on another thread, and may be published again after an abort."""
    table["a"] = 1
    rig.keep_record()
    rig.seal()
    sealed = dict(rig.overlay.sealed)
    table["a"] = 2
    table["b"] = 3
    rig.undo_record()
    del table["a"]
    assert rig.overlay.sealed == sealed == {table_prefix("totals") + b"a": b"1"}


def test_a_commit_carries_the_last_value_of_each_key(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """Absolute values, once per key: a replay may apply them twice. A deleted key is there as deleted."""
    for n in range(5):
        table["a"] = n
    table["b"] = 1
    del table["b"]
    prefix = table_prefix("totals")
    assert table.take_writes() == {prefix + b"a": b"4", prefix + b"b": None}
    assert table.take_writes() == {}


def test_written_bytes_are_counted(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """They bound a commit's size."""
    table["a"] = 100
    table["a"] = 2000
    assert rig.overlay.written_bytes == 7


def test_eviction_keeps_the_newest(rig: Rig) -> None:
    """A bounded cache: the values that were read or written first are dropped first."""
    table = rig.table
    table.update({str(n): n for n in range(10)})
    rig.commit()
    taken = table.measure()
    table.trim(taken)
    assert len(table._slots) == 10
    table.trim(taken * 4 // 10)
    assert list(table._slots) == ["6", "7", "8", "9"]
    assert dict(table.items()) == {str(n): n for n in range(10)}


# Scans


def test_items_are_as_of_the_call(rig: Rig, table: RuntimeTable[str, int]) -> None:
    """Writing while going through the rows neither shows nor breaks anything, nor does a commit amid it."""
    table.update({"a": 1, "b": 2})
    rig.commit()
    table["c"] = 3
    rows = table.items()
    table["a"] = 9
    del table["b"]
    table["d"] = 4
    assert next(rows) == ("a", 1)
    table["aa"] = 5
    assert list(rows) == [("b", 2), ("c", 3)]
    assert list(table.items()) == [("a", 9), ("aa", 5), ("c", 3), ("d", 4)]


def test_rows_can_be_deleted_while_going_through_them(table: RuntimeTable[str, int]) -> None:
    """The usual way to expire things."""
    table.update({str(n): n for n in range(10)})
    for key, value in table.items():
        if value % 2:
            del table[key]
    assert [value for _, value in table.items()] == [0, 2, 4, 6, 8]


def test_first_fields_select_rows() -> None:
    """All flights of one carrier, in the order of their bytes."""
    rig = Rig(table_def(key=tuple[str, int]))
    rows = {("AA", 1): 1, ("AA", 10): 2, ("A", 1): 3, ("AAA", 1): 4, ("AA", 2): 5}
    rig.table.update(rows)
    assert dict(rig.table.items(prefix=("AA",))) == {("AA", 1): 1, ("AA", 10): 2, ("AA", 2): 5}
    assert dict(rig.table.items(prefix=("AA", 1))) == {("AA", 1): 1}
    assert dict(rig.table.items(prefix=())) == dict(rig.table.items()) == rows


def test_a_wrong_prefix_is_an_error_at_the_call() -> None:
    """Not at the first row, somewhere else."""
    with pytest.raises(TypeError):
        Rig(table_def()).table.items(prefix=5)
    with pytest.raises(TypeError, match="no prefixes"):
        Rig(table_def(key=int)).table.items(prefix=5)


def test_tables_of_a_task_are_apart() -> None:
    """They share store and overlay, and may have equal keys."""
    rig = Rig(table_def(), table_def(name="another"), table_def(value=str, name="third"))
    one, other, third = rig.tables
    one["a"], other["a"], third["a"] = 1, 2, "x"
    for _ in range(2):
        assert (list(one.items()), list(other.items()), list(third.items())) == (
            [("a", 1)],
            [("a", 2)],
            [("a", "x")],
        )
        rig.commit(cache_bytes=1)


@given(st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True), max_size=5))
def test_a_tables_prefix_is_durable_and_never_that_of_the_position(names: list[str]) -> None:
    """Rows are found by these bytes in all releases; the store reserves keys that begin with zero."""
    for name in names:
        assert len(table_prefix(name)) == 4
        assert table_prefix(name)[0] != 0
    assert table_prefix("totals") == bytes.fromhex("05266fd2")

"""A table beside a dict: random reads and writes, with commits, undone records and evictions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.api.table import RuntimeTable, table_prefix
from tests.support.tables import Rig, table_def

KEYS = ["", "a", "ab", "abc", "b", "ba", "\x00", "ü"]
keys = st.sampled_from(KEYS)


class TableMachine(RuleBasedStateMachine):
    """Random reads and writes beside a dict, with commits, undone records and evictions at any moment."""

    declared: Any = int
    values: st.SearchStrategy[Any] = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(table_def(value=self.declared), table_def(name="another"))
        self.model: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        self.commit_under_way = False

    @property
    def table(self) -> RuntimeTable[str, Any]:
        return self.rig.table

    @initialize(data=st.data())
    def start_with_rows_on_disk(self, data: st.DataObject) -> None:
        rows = data.draw(st.dictionaries(keys, self.values, max_size=4))
        self.table.update(rows)
        self.rig.commit(cache_bytes=1)
        self.model = dict(rows)
        self.before = dict(rows)

    @rule(key=keys, data=st.data())
    def write(self, key: str, data: st.DataObject) -> None:
        value = data.draw(self.values)
        self.table[key] = value
        self.model[key] = value

    @rule(key=keys)
    def delete(self, key: str) -> None:
        if key in self.model:
            del self.table[key]
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                del self.table[key]

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        values = data.draw(st.dictionaries(keys, self.values, max_size=3))
        self.table.update(values)
        self.model.update(values)

    @rule(key=keys)
    def read(self, key: str) -> None:
        assert self.table.get(key, "absent") == self.model.get(key, "absent")
        assert self.table.get(key) == self.model.get(key)
        assert (key in self.table) == (key in self.model)
        if key in self.model:
            assert self.table[key] == self.model[key]
        else:
            with pytest.raises(KeyError):
                self.table[key]

    @rule(wanted=st.lists(keys, max_size=6))
    def read_many(self, wanted: list[str]) -> None:
        assert self.table.get_many(wanted) == {key: self.model[key] for key in wanted if key in self.model}

    @rule(prefix=st.none() | keys)
    def scan(self, prefix: str | None) -> None:
        self.check_scan(prefix)

    @rule()
    def finish_record(self) -> None:
        self.rig.keep_record()
        self.before = dict(self.model)

    @rule()
    def undo_record(self) -> None:
        self.rig.undo_record()
        self.model = dict(self.before)

    @precondition(lambda self: not self.commit_under_way)
    @rule()
    def seal(self) -> None:
        self.finish_record()
        self.rig.seal()
        self.commit_under_way = True

    @precondition(lambda self: self.commit_under_way)
    @rule()
    def apply(self) -> None:
        """On another thread, hence at any moment, also amid a record; twice does no harm."""
        self.rig.apply()

    @precondition(lambda self: self.commit_under_way)
    @rule(most=st.integers(1, 5))
    def retire(self, most: int) -> None:
        self.finish_record()
        self.rig.apply()
        self.rig.retire(most)
        self.commit_under_way = False

    @rule(most=st.integers(1, 5))
    def evict(self, most: int) -> None:
        self.table.trim(most)

    @invariant()
    def other_tables_are_untouched(self) -> None:
        assert list(self.rig.tables[1].items()) == []

    def check_scan(self, prefix: str | None) -> None:
        expected = [
            (key, self.model[key])
            for key in sorted(self.model, key=str.encode)
            if prefix is None or key.startswith(prefix)
        ]
        assert list(self.table.items(prefix=prefix)) == expected

    def teardown(self) -> None:
        self.check_scan(None)
        self.rig.undo_record()
        self.rig.apply()
        self.rig.commit(cache_bytes=1)
        rows = self.rig.store.scan(table_prefix("totals"))
        decode = self.table.definition.value.decode
        assert {key[4:].decode(): decode(data) for key, data in rows} == self.before


class MutableTableMachine(TableMachine):
    """The same with values that are kept encoded."""

    declared = list[int] | None
    values = st.none() | st.lists(st.integers(0, 2), max_size=2)


TestTableOfImmutableValues = TableMachine.TestCase
TestTableOfMutableValues = MutableTableMachine.TestCase
TestTableOfImmutableValues.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTableOfMutableValues.settings = TestTableOfImmutableValues.settings

"""Tables of a real `faust.App` over our rows."""

from __future__ import annotations

from typing import Any

import faust
import pytest

from pipeline import faust_error_policy
from pipeline.api.table import table_prefix
from pipeline.app import declared_app
from pipeline.core.inputs import row_prefix
from pipeline.errors import InputError
from pipeline.testing import TestDriver
from tests.faust.test_agents import Order, new_app, values


def _driven(app: faust.App, source: Any, *given: object) -> TestDriver:
    """A driver whose worker has processed these values."""
    driver = TestDriver(app)
    for value in given:
        driver.send(source, None, value)
    driver.run()
    return driver


def test_a_value_that_is_changed_in_place_is_stored() -> None:
    """In Faust, such a change is there until a recovery, which loses it."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen, accounts = app.Table("seen", default=list), app.Table("accounts", value_type=Order)

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            seen["words"] = seen["words"] or []
            seen["words"].append(value)
            seen["words"].append(value.upper())
            if "a" not in accounts:
                accounts["a"] = Order("a", 0)
            accounts["a"].amount += 1

    driver = _driven(app, source, "x")
    driver.restart(empty_disk=True)
    driver.send(source, None, "y")
    driver.run()
    assert driver.table(seen) == {"words": ["x", "X", "y", "Y"]}
    assert driver.table(accounts) == {"a": Order("a", 2)}


def test_a_value_changed_in_place_by_a_failed_event_is_not_stored() -> None:
    """The next event must read the committed value, not the object that the failed one has changed."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen = app.Table("seen")
    faust_error_policy(app, on_error="skip")

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            if "words" not in seen:
                seen["words"] = []
            seen["words"].append(value)
            if value == "fails":
                raise ValueError(value)

    driver = _driven(app, source, "a", "fails", "b")
    assert driver.table(seen) == {"words": ["a", "b"]}


def test_a_value_changed_in_the_event_of_an_agent_that_returns_is_stored() -> None:
    """The event in which it returns is finished as the others are."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen = app.Table("seen")

    @app.agent(source)
    async def once(stream: Any) -> None:
        async for value in stream:
            seen["words"] = []
            seen["words"].append(value)
            return

    driver = _driven(app, source, "a")
    assert driver.table(seen) == {"words": ["a"]}


def test_a_value_changed_after_its_assignment_is_stored() -> None:
    """The agent keeps the object that it has assigned, and need not read it again."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen = app.Table("seen")

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            words: list[str] = []
            seen["words"] = words
            words.append(value)

    driver = _driven(app, source, "a")
    assert driver.table(seen) == {"words": ["a"]}


def test_a_value_deleted_after_a_change_in_place_stays_deleted() -> None:
    """The end of the event must not store the object once more."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen = app.Table("seen")

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for _ in stream:
            seen["words"] = ["a"]
            seen["words"].append("b")
            del seen["words"]

    driver = _driven(app, source, "x")
    assert driver.table(seen) == {}


def test_a_default_is_not_stored_by_reading_it() -> None:
    """As in Faust, where `table[key].append(...)` of a new key is lost."""
    app = new_app()
    source = app.topic("source", value_type=str)
    seen = app.Table("seen", default=list)

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            seen["words"].append(value)

    driver = _driven(app, source, "x")
    assert driver.table(seen) == {}


def test_mapping_methods_see_the_rows_of_the_partition() -> None:
    """Including what the event itself has written and changed in place."""
    app = new_app()
    source, target = app.topic("source", value_type=str), app.topic("target")
    table = app.Table("rows")

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for _ in stream:
            table["b"] = {"n": 2}
            table.update({"a": 1, "c": 3})
            table["b"]["n"] = 5
            del table["c"]
            assert table.pop("none", 7) == 7
            await target.send(
                value=[list(table.items()), list(table.keys()), list(table.values()), len(table)]
            )
            await target.send(value=["a" in table, "c" in table, table.get("a"), table.get("c"), list(table)])
            assert table.setdefault("d", 4) == 4
            table.clear()
            table["e"] = 9

    driver = _driven(app, source, "x")
    assert values(driver, target) == [
        [[["a", 1], ["b", {"n": 5}]], ["a", "b"], [1, {"n": 5}], 2],
        [True, False, 1, None, ["a", "b"]],
    ]
    assert driver.table(table) == {"e": 9}


def test_a_set_table_stores_its_sets_at_the_end_of_an_event() -> None:
    """A set is one row, with its elements in one order, however they were added."""
    app = new_app()
    source = app.topic("source", value_type=str)
    likes = app.SetTable("likes", value_type=str)

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            likes["a"].update(set(value.split(",")))
            likes["a"].discard("x")
            assert "x" not in likes["a"]
            likes["b"].add("only")
            likes["b"].clear()
            assert "c" not in likes
            assert likes["c"] == set()

    driver = _driven(app, source, "x,y")
    driver.restart(empty_disk=True)
    driver.send(source, None, "z")
    driver.run()
    assert driver.table(likes) == {"a": {"y", "z"}, "b": set()}


def test_add_alone_stores_a_set() -> None:
    """It is what most applications call."""
    app = new_app()
    source = app.topic("source", value_type=str)
    likes = app.SetTable("likes", value_type=str)

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            likes["a"].add(value)

    driver = _driven(app, source, "x", "y")
    assert driver.table(likes) == {"a": {"x", "y"}}


def test_the_bytes_of_a_set_are_its_elements_in_order() -> None:
    """Equal sets must have equal bytes in each process, whose hashes differ."""
    app = new_app()
    source = app.topic("source", value_type=str)
    likes = app.SetTable("likes", value_type=str)

    @app.agent(source)
    async def change(stream: Any) -> None:
        async for value in stream:
            likes[value].update({"d", "a", "c", "b"})

    driver = _driven(app, source, "k")
    assert list(_raw(driver, "likes").values()) == [b'["a","b","c","d"]']


def test_rows_have_the_bytes_of_the_changelog_of_faust() -> None:
    """So that the tables of an application can be taken over, and their keys be found."""
    app = new_app()
    source = app.topic("source", value_type=int)
    tables: dict[str, tuple[Any, dict[Any, Any]]] = {
        "plain": (app.Table("plain"), {"k é": 1, ("a", 2): [1.5, None], 7: "ü", "record": Order("a", 1)}),
        "typed": (app.Table("typed", key_type=int, value_type=Order), {5: Order("a", 1)}),
        "text": (app.Table("text", key_type=str, value_type=str), {"k": "v"}),
        "bytes": (app.Table("bytes", key_type=bytes, value_type=bytes), {b"k": b"v"}),
    }
    expected = {
        name: {
            app.serializers.dumps_key(table.key_type, key, serializer=table.key_serializer):
            app.serializers.dumps_value(table.value_type, value, serializer=table.value_serializer)
            for key, value in rows.items()
        }
        for name, (table, rows) in tables.items()
    }  # fmt: skip

    @app.agent(source)
    async def write(stream: Any) -> None:
        async for _ in stream:
            for table, rows in tables.values():
                for key, value in rows.items():
                    table[key] = value
                    assert table[key] == value
                    assert key in table

    driver = _driven(app, source, 1)
    stored = {name: _raw(driver, name) for name in tables}
    assert stored == expected
    assert isinstance(tables["plain"][0], faust.Table)


def test_a_number_as_a_key_on_the_command_line_is_ambiguous_without_a_key_type() -> None:
    """Faust stores the keys 7 and "7" as two rows, and looking up the wrong one would find nothing."""
    app = new_app()
    plain, typed = app.Table("plain"), app.Table("typed", key_type=int)
    declared = declared_app(app)
    assert declared.declared(typed).parse_key("7") == b"7"
    assert declared.declared(plain).parse_key('"7"') == b'"7"'
    assert declared.declared(plain).parse_key("7a") == b'"7a"'
    for number in ("7", "-1.5"):
        with pytest.raises(
            InputError, match="can be a number or a text in the keys of table plain"
        ) as raised:
            declared.declared(plain).parse_key(number)
        assert "key_type=int" in (raised.value.hint or "")


def _raw(driver: TestDriver, name: str) -> dict[bytes, bytes]:
    """The stored rows of a table, as bytes."""
    prefix = row_prefix(0) + table_prefix(name)
    stored = [driver.stores.contents(task).items() for task in driver.stores.positions()]
    return {key[len(prefix) :]: data for rows in stored for key, data in rows if key.startswith(prefix)}

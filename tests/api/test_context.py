"""What a handler acts through: bad outputs belong to their record, and good ones are as they were sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from pipeline import App, TaskTable, Topic
from pipeline.api.context import RuntimeContext, Sender
from pipeline.api.declarations import Resource, declared_table, declared_topic
from pipeline.api.table import RuntimeTable, TaskOverlay
from pipeline.api.topic_limits import Accepted
from pipeline.app import declared_app
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import ConfigError
from pipeline.ports import Output
from pipeline.testing.memory_log import MemoryRecord
from pipeline.testing.memory_store import MemoryStores

LIMIT = 100


class Total(msgspec.Struct, frozen=True):
    count: int


app = App("shop")
totals_out = app.topic("totals", key=str, value=Total)
stones = app.topic("stones", key=str, value=Total | None)
blobs = app.topic("blobs", key=str | None, value=bytes)
unkeyed = app.topic("unkeyed", value=int)
totals = app.table("totals", key=str, value=Total)


def sender(topic: Topic[Any, Any]) -> Sender:
    declared = declared_topic(topic)
    return topic.name, declared.key.encode, declared.value.admit, Accepted(topic.name, LIMIT)


@pytest.fixture
def ctx() -> RuntimeContext:
    store = MemoryStores().open(TaskId("shop", "main", 0))
    made = RuntimeContext(
        {declared_table(totals): RuntimeTable(declared_table(totals), store, TaskOverlay())},
        {topic: sender(topic) for topic in declared_app(app).topics.values()},
        lambda resource: resource.factory(),
    )
    made.message = MemoryRecord(TopicPartition("in", 0), 5, Output("in", b"k", b"v", 1_000, ()))
    return made


def test_outputs_are_kept_encoded_and_in_order(ctx: RuntimeContext) -> None:
    """Nothing about them can change any more, and nothing about them can fail at the commit."""
    ctx.send(totals_out, "a", Total(1))
    ctx.send(stones, "b", None)
    ctx.send(unkeyed, None, 7)
    assert ctx.take_outputs() == [
        ("totals", b"a", b'{"count":1}', 1_000, ()),
        ("stones", b"b", None, 1_000, ()),
        ("unkeyed", None, b"7", 1_000, ()),
    ]
    assert ctx.take_outputs() == []


def test_an_output_carries_its_inputs_timestamp_unless_one_is_given(ctx: RuntimeContext) -> None:
    """Event time must survive a chain of apps."""
    ctx.send(unkeyed, None, 1)
    ctx.send(unkeyed, None, 1, timestamp_ms=0)
    ctx.send(unkeyed, None, 1, timestamp_ms=9_000)
    assert [output[3] for output in ctx.outputs] == [1_000, 1, 9_000]


def test_an_input_of_the_epoch_does_not_turn_into_one_of_the_present(ctx: RuntimeContext) -> None:
    """The Kafka client takes 0 for no timestamp; retention would keep the output for years too long."""
    record = MemoryRecord(TopicPartition("in", 0), 5, Output("in", None, None, 0, ()))
    ctx.message = record
    ctx.send(unkeyed, None, 1)
    ctx.forward(declared_topic(unkeyed), record, ())
    assert [output[3] for output in ctx.outputs] == [1, 1]


def test_an_input_without_a_timestamp_lets_the_broker_give_one(ctx: RuntimeContext) -> None:
    """-1 would be refused by the producer."""
    ctx.message = MemoryRecord(TopicPartition("in", 0), 5, Output("in", None, None, -1, ()))
    ctx.send(unkeyed, None, 1)
    assert ctx.outputs[0][3] == 0


BAD: list[tuple[Topic[Any, Any], Any, Any, dict[str, Any]]] = [
    (totals_out, 5, Total(1), {}),
    (totals_out, None, Total(1), {}),
    (totals_out, "a", None, {}),
    (totals_out, "a", Total("1"), {}),  # type: ignore[arg-type]
    (totals_out, "a", {"count": 1}, {}),
    (unkeyed, "a", 1, {}),
    (unkeyed, None, True, {}),
    (unkeyed, None, 1, {"timestamp_ms": -1}),
    (unkeyed, None, 1, {"timestamp_ms": 1.5}),
    (unkeyed, None, 1, {"timestamp_ms": "now"}),
    (unkeyed, None, 1, {"timestamp_ms": 2**63}),
    (unkeyed, None, 1, {"headers": [("\ud800", b"a")]}),
    (unkeyed, None, 1, {"headers": [("a\0b", b"a")]}),
    (unkeyed, None, 1, {"headers": [("a", "text")]}),
    (unkeyed, None, 1, {"headers": [(b"a", b"")]}),
    (unkeyed, None, 1, {"headers": [(None, b"a")]}),
    (unkeyed, None, 1, {"headers": [("a", b"x" * LIMIT)]}),
    (blobs, None, b"x" * (LIMIT + 1), {}),
    (blobs, "k" * 60, b"x" * 60, {}),
    (blobs, "k" * (LIMIT + 1), b"", {}),
    (stones, "k" * (LIMIT + 1), None, {}),
]


@pytest.mark.parametrize(("topic", "key", "value", "more"), BAD, ids=repr)
def test_a_bad_output_is_refused_where_it_is_sent(
    ctx: RuntimeContext, topic: Topic[Any, Any], key: Any, value: Any, more: dict[str, Any]
) -> None:
    """At the commit it would make the whole commit fail, at each attempt.

    A handler that catches the error continues as if it had not sent.
    """
    ctx.send(unkeyed, None, 1)
    with pytest.raises((TypeError, ValueError)):
        ctx.send(topic, key, value, **more)
    assert len(ctx.outputs) == 1


def test_an_output_may_be_as_large_as_its_topic_allows(ctx: RuntimeContext) -> None:
    """Key, value and headers count; the limit itself is allowed."""
    ctx.send(blobs, "k" * 40, b"x" * 60)
    ctx.send(blobs, "k" * 40, b"x" * 40, headers=[("name", b"12345678")])
    with pytest.raises(ValueError, match="a record of 101 bytes is over the limit of topic blobs") as caught:
        ctx.send(blobs, "k" * 40, b"x" * 40, headers=[("name", b"123456789")])
    assert f"({LIMIT} bytes)" in str(caught.value)


def test_headers_changed_after_the_call_are_sent_as_they_were(ctx: RuntimeContext) -> None:
    """A handler may build one list and extend it from output to output."""
    headers = [("n", b"1")]
    ctx.send(unkeyed, None, 1, headers=headers)
    headers.append(("n", b"2"))
    ctx.send(unkeyed, None, 2, headers=headers)
    assert [list(output[4]) for output in ctx.outputs] == [[("n", b"1")], [("n", b"1"), ("n", b"2")]]


def test_a_value_changed_after_the_call_is_sent_as_it_was() -> None:
    """Outputs never alias what the handler holds."""
    other = App("lists")
    lists = other.topic("lists", value=list[int])
    ctx = RuntimeContext({}, {declared_topic(lists): sender(lists)}, lambda resource: resource.factory())
    ctx.message = MemoryRecord(TopicPartition("in", 0), 0, Output("in", None, None, 0, ()))
    value = [1]
    ctx.send(lists, None, value)
    value.append(2)
    ctx.send(lists, None, value)
    assert [output[2] for output in ctx.outputs] == [b"[1]", b"[1,2]"]


def test_a_table_of_another_group_is_refused(ctx: RuntimeContext) -> None:
    """Its partitions may lie on another worker."""
    foreign = app.group("hourly").table("totals", key=str, value=Total)
    with pytest.raises(ConfigError, match=r"table hourly\.totals does not belong to the group") as caught:
        ctx.table(foreign)
    assert caught.value.hint


def test_a_topic_that_the_app_does_not_declare_is_refused(ctx: RuntimeContext) -> None:
    """Its partitions and limits were never looked up, and its name may be a typing mistake."""
    foreign = App("other").topic("totals", key=str, value=Total)
    for topic in (foreign, "totals", ["totals"]):
        with pytest.raises(ConfigError, match="is not declared by this app"):
            ctx.send(topic, "a", Total(1))  # type: ignore[arg-type]


def test_a_table_is_the_same_object_during_a_call(ctx: RuntimeContext) -> None:
    """`ctx.table` is called for each record, often twice."""
    assert ctx.table(totals) is ctx.table(totals)


def test_a_resource_is_what_its_factory_made(ctx: RuntimeContext) -> None:
    """Its type is the factory's."""

    def pool() -> Iterator[int]:
        return iter([1])

    resource: Resource[Iterator[int]] = app.resource(pool)
    made = ctx.resource(resource)
    assert next(made) == 1


@pytest.mark.parametrize("mistake", ["totals", None, ["totals"], totals_out])
def test_what_is_no_table_and_no_resource_stops_whatever_the_policy_is(
    ctx: RuntimeContext, mistake: Any
) -> None:
    """A mistake in the program is in every record: as dead letters they would be the whole topic."""
    with pytest.raises(ConfigError, match=r"ctx\.table takes what app\.table\(\.\.\.\) returned, not"):
        ctx.table(mistake)
    with pytest.raises(ConfigError, match=r"ctx\.resource takes what app\.resource\(\.\.\.\) returned, not"):
        ctx.resource(mistake)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda table: table["a"],
        lambda table: table.__setitem__("a", Total(1)),
        lambda table: table.__delitem__("a"),
        lambda table: "a" in table,
        lambda table: table.get("a"),
        list,
        len,
    ],
)
def test_a_declaration_of_a_table_says_where_its_rows_are(mistake: Callable[[Any], object]) -> None:
    """Everybody writes it once; a TypeError would say nothing about ctx.table, and would get the record's policy."""
    with pytest.raises(ConfigError, match=r"table main\.\w+ is a declaration and holds no rows") as caught:
        mistake(totals)
    assert "ctx.table(" in (caught.value.hint or "")
    assert totals


def test_a_refused_output_is_named_by_its_topic(ctx: RuntimeContext) -> None:
    """A handler sends to several topics, and its error may be read in a dead letter only."""
    keyed: Topic[Any, Any] = totals_out
    without: Topic[Any, Any] = unkeyed
    with pytest.raises(TypeError, match=r"^topic totals: expected Total, got int$"):
        ctx.send(keyed, "a", 5)
    with pytest.raises(msgspec.ValidationError, match=r"^topic totals: Expected `int`, got `str`"):
        ctx.send(keyed, "a", Total("1"))  # type: ignore[arg-type]
    for key in (5, None, b"a"):
        with pytest.raises(
            TypeError, match=rf"^topic totals: expected a key of type str, got {type(key).__name__}$"
        ):
            ctx.send(keyed, key, Total(1))
    with pytest.raises(TypeError, match=r"^topic unkeyed: the topic is declared without a key$"):
        ctx.send(without, "a", 1)


def test_a_refused_row_is_named_by_its_table(ctx: RuntimeContext) -> None:
    """As an output is."""
    table: TaskTable[Any, Any] = ctx.table(totals)
    with pytest.raises(TypeError, match=r"^table main\.totals: expected Total, got int$"):
        table["a"] = 5
    with pytest.raises(TypeError, match=r"^table main\.totals: expected a key of type str, got int$"):
        table.get(5)
    assert "a" not in table


def test_an_error_of_a_users_codec_is_raised_as_it_is() -> None:
    """A handler may catch it by its class."""

    class TooOldError(ValueError):
        def __init__(self, year: int, age: int) -> None:
            super().__init__(f"{year} is {age} years ago")

    class Years:
        def encode(self, value: int) -> bytes:
            raise TooOldError(value, 100)

        def decode(self, data: bytes) -> int:
            return int(data)

    years = App("years").topic("years", value=int, codec=Years())
    ctx = RuntimeContext({}, {declared_topic(years): sender(years)}, lambda resource: resource.factory())
    with pytest.raises(TooOldError, match="1913 is 100 years ago") as caught:
        ctx.send(years, None, 1913)
    assert caught.value.__notes__ == ["in topic years"]

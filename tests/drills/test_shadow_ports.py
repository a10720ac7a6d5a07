"""A shadow app gets no record after the end of its replay, and writes to no topic that is not its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline.core.names import TopicPartition, shadow_app, shadow_output, topics_of_shadow
from pipeline.drills.shadow_ports import BoundedSources, ShadowProducers
from pipeline.drills.shadow_spec import ShadowSpec, ShadowTask
from pipeline.errors import InputError, InvariantError
from pipeline.ports import Output, Record, TopicSpec
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryProducers, MemorySources

_SHADOW = "shop-shadow-1"
_ORDERS = TopicPartition("orders", 0)


def _spec(end: int, boundaries: Sequence[int] = ()) -> ShadowSpec:
    task = ShadowTask("main", 0, 1, 0, {"orders": 0}, {"orders": end}, 9, {"orders": list(boundaries)})
    return ShadowSpec("shop", _SHADOW, "/nowhere", {"bills": shadow_output(_SHADOW, "bills")}, [task])


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    for name in ("orders", "bills", shadow_output(_SHADOW, "bills"), f"{_SHADOW}.main.dead-letters"):
        broker.create(TopicSpec(name, 1))
    return broker


def _orders(broker: MemoryBroker, count: int) -> None:
    client = MemoryProducers(broker).open("loader")
    client.init()
    client.begin()
    client.send([Output("orders", b"k", b"%d" % n, 1) for n in range(count)])
    client.flush()
    client.commit()


def _polled(broker: MemoryBroker, spec: ShadowSpec, polls: Sequence[int]) -> list[list[int]]:
    source = BoundedSources(MemorySources(broker), spec).open(f"{_SHADOW}.main")
    source.assign({_ORDERS: 0})
    return [[record.offset() for record in source.poll(count, 0.0).records] for count in polls]


def test_records_from_the_end_on_are_not_given_out(broker: MemoryBroker) -> None:
    """The live rows at the end do not contain them."""
    _orders(broker, 6)
    assert _polled(broker, _spec(4), [3, 3, 3]) == [[0, 1, 2], [3], []]


def test_records_are_given_out_up_to_commits_of_the_live_task(broker: MemoryBroker) -> None:
    """At these positions, the rows of both apps can be compared."""
    _orders(broker, 10)
    assert _polled(broker, _spec(8, [2, 3, 6, 8]), [5, 2, 3]) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_records_before_the_first_known_commit_are_not_held(broker: MemoryBroker) -> None:
    """The journal may begin late, and the process would otherwise hold all records before."""
    _orders(broker, 10)
    assert _polled(broker, _spec(10, [8, 10]), [4, 6]) == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]


def test_a_rewind_discards_records_that_are_held(broker: MemoryBroker) -> None:
    """They would otherwise be processed twice."""
    _orders(broker, 6)
    source = BoundedSources(MemorySources(broker), _spec(6, [4, 6])).open(f"{_SHADOW}.main")
    source.assign({_ORDERS: 2})
    assert [record.offset() for record in source.poll(3, 0.0).records] == [2, 3]
    source.rewind({_ORDERS: 2})
    assert [record.offset() for record in source.poll(9, 0.0).records] == [2, 3, 4, 5]


def test_records_that_are_held_leave_with_their_partition(broker: MemoryBroker) -> None:
    """The partition may come back, and its records would be processed twice."""
    _orders(broker, 6)
    source = BoundedSources(MemorySources(broker), _spec(6, [4, 6])).open(f"{_SHADOW}.main")
    source.assign({_ORDERS: 2})
    assert [record.offset() for record in source.poll(3, 0.0).records] == [2, 3]
    source.unassign([_ORDERS])
    source.assign({_ORDERS: 4})
    assert [record.offset() for record in source.poll(9, 0.0).records] == [4, 5]


def test_each_group_ends_where_its_own_tasks_do(broker: MemoryBroker) -> None:
    """Groups read the same topic at different positions. A task that is not replayed gets nothing."""
    _orders(broker, 6)
    spec = _spec(2)
    other = msgspec.structs.replace(spec.tasks[0], group="other", end={"orders": 5})
    sources = BoundedSources(MemorySources(broker), msgspec.structs.replace(spec, tasks=[*spec.tasks, other]))
    found = {}
    for group in ("main", "other", "third"):
        source = sources.open(f"{_SHADOW}.{group}")
        source.assign({_ORDERS: 0})
        found[group] = len(source.poll(9, 0.0).records)
    assert found == {"main": 2, "other": 5, "third": 0}


def _sent(broker: MemoryBroker, outputs: Sequence[Output]) -> None:
    client = ShadowProducers(MemoryProducers(broker), _spec(1)).open(f"{_SHADOW}.main.0")
    client.init()
    client.begin()
    client.send(outputs)
    client.flush()
    client.commit()


def _headers(record: Record) -> Mapping[str, bytes]:
    return dict(record.headers() or [])


def test_outputs_go_to_the_shadow_of_their_topic(broker: MemoryBroker) -> None:
    """A reader of the live topic must not see a record of the drill."""
    _sent(broker, [Output("bills", b"k", b"1", 5, [("made", b"x")])])
    assert broker.records("bills") == []
    (record,) = broker.records(shadow_output(_SHADOW, "bills"))
    assert (record.key(), record.value(), record.timestamp()[1]) == (b"k", b"1", 5)
    assert _headers(record) == {"made": b"x"}


def test_dead_letters_of_the_shadow_app_are_its_own(broker: MemoryBroker) -> None:
    """Their topic has the name of the shadow app already."""
    _sent(broker, [Output(f"{_SHADOW}.main.dead-letters", b"k", b"1", 5)])
    assert len(broker.records(f"{_SHADOW}.main.dead-letters")) == 1


def test_a_record_for_a_foreign_topic_is_refused(broker: MemoryBroker) -> None:
    """Whatever the reason, such a record must not leave the process."""
    with pytest.raises(InvariantError, match=r"would write to topic shop\.main\.dead-letters"):
        _sent(broker, [Output("shop.main.dead-letters", b"k", b"1", 5)])
    producers = ShadowProducers(MemoryProducers(broker), _spec(1))
    with pytest.raises(InvariantError, match=r"would use the transactional id shop\.main\.0"):
        producers.open("shop.main.0")
    with pytest.raises(InvariantError, match=r"would write to the journal shop\.main\.journal"):
        producers.open(f"{_SHADOW}.main.0").append(TopicPartition("shop.main.journal", 0), [b"x"])


def test_a_shadow_app_without_its_description_does_not_begin(tmp_path: Path) -> None:
    """It would not know which topics are its own."""
    file = tmp_path / "shadow.json"
    with pytest.raises(InputError, match="cannot be read: No such file or directory") as caught:
        ShadowSpec.read(file)
    assert caught.value.hint == "the drill has ended"
    file.write_text('{"live": "shop"}')
    with pytest.raises(InputError, match="does not describe a shadow app"):
        ShadowSpec.read(file)
    _spec(4).write(file)
    assert ShadowSpec.read(file) == _spec(4)


def test_only_topics_of_this_shadow_app_are_deleted() -> None:
    """The undo of a drill deletes topics by their names."""
    shadow, other = shadow_app("shop", 17), shadow_app("shop", 171)
    own = [f"{shadow}.main.journal", f"pipeline.workers.{shadow}", shadow_output(shadow, "bills")]
    kept = ["bills", "shop.main.journal", "pipeline.workers.shop", f"{other}.main.journal"]
    kept += [shadow_output(other, "bills"), f"pipeline.workers.{other}"]
    assert topics_of_shadow(shadow, [*own, *kept]) == own


def test_the_shadow_of_a_long_name_is_a_valid_name_of_its_own() -> None:
    """Kafka accepts 249 characters."""
    names = {shadow_output(_SHADOW, "x" * 248 + end) for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {249}

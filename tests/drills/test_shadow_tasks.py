"""Shadow tasks that own several partitions: where they begin and end, and which record an output is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import App
from pipeline.api.context import RuntimeContext
from pipeline.app import declared_app
from pipeline.core.names import TopicPartition
from pipeline.drills.scene import RefusedDrillError
from pipeline.drills.shadow_ports import BoundedSources
from pipeline.drills.shadow_spec import SOURCE_HEADER, ShadowSpec, ShadowTask
from pipeline.drills.shadow_starts import LiveTask, Since, shadow_task
from pipeline.drills.shadow_worker import _shadowed
from pipeline.testing.memory_clients import MemoryJournalReader, MemorySources
from tests.support.runtime.several import BAD, TASKS, Several


def _found(several: Several, number: int, since: Since | None = None) -> ShadowTask:
    reader, task = MemoryJournalReader(several.driver.broker), several.task(number)
    live = LiveTask(task, declared_app(several.app).main, TASKS)
    end = reader.bounds(task.journal).stable_end
    return shadow_task(live, since or Since(), end, reader, checkpoints=False)


def test_each_partition_is_replayed_up_to_its_own_end() -> None:
    """A position of the first partition is not that of the others."""
    several = Several.begun()
    several.send("b", partitions=[2, 2, 4])
    several.driver.run()
    found = _found(several, 0)
    assert (found.seq, found.several) == (0, True)
    assert found.start == {"numbers": 0, "numbers/1": 0, "numbers/2": 0}
    assert found.end == {"numbers": 1, "numbers/1": 3, "numbers/2": 2}
    assert found.boundaries["numbers/1"] == [0, 1, 3]
    spec = ShadowSpec("several", "several-shadow-1", "/nowhere", {}, [found])
    source = BoundedSources(MemorySources(several.driver.broker), spec).open("several-shadow-1.main")
    several.send("late", partitions=range(6))
    places = [TopicPartition("numbers", partition) for partition in range(6)]
    source.assign(dict.fromkeys(places, 0))
    given = [(record.partition(), record.offset()) for record in source.poll(100, 0.0).records]
    assert sorted(given) == [(0, 0), (2, 0), (2, 1), (2, 2), (4, 0), (4, 1)]


def test_a_record_chooses_the_start_of_the_task_that_has_its_partition() -> None:
    """Of the other tasks, nothing is replayed."""
    several = Several.begun()
    several.send("b", partitions=[4, 5])
    several.driver.run()
    since = Since(place=TopicPartition("numbers", 4), offset=1)
    found = _found(several, 0, since)
    assert found.seq > 0
    assert (found.start["numbers/2"], found.end["numbers/2"]) == (1, 2)
    other = _found(several, 1, since)
    assert (other.seq, other.start) == (other.end_seq, other.end)


def test_a_replay_does_not_begin_before_a_reset_of_one_partition() -> None:
    """The rows of the other partitions are older than the reset, and those of this one are deleted."""
    several = Several.begun()
    several.driver.reset("earliest", partition=2)
    several.driver.run()
    several.send("b", partitions=[0])
    several.driver.run()
    found = _found(several, 0)
    assert found.seq > 2
    assert found.start == {"numbers": 1, "numbers/1": 0, "numbers/2": 1}
    several.driver.reset("earliest")
    assert _found(several, 0).seq == 0
    several.driver.run()
    several.driver.reset("earliest", partition=2)
    assert _found(several, 0).seq > 0


def test_replayed_letters_of_any_partition_are_noticed() -> None:
    """The shadow app does not get them, whichever partition they are of."""
    several = Several.begun()
    several.send("b", BAD, [4])
    several.driver.run()
    assert _found(several, 0).seq == 0
    several.fixed = True
    several.driver.replay_dead_letters()
    several.driver.run()
    with pytest.raises(RefusedDrillError, match="has processed replayed dead letters"):
        _found(several, 0)
    assert _found(several, 1).seq == 0


def _handled(handler: Callable[[Any, Any], None], given: Any, *, batch: bool) -> Sequence[Any]:
    """The outputs of a handler of a shadow app."""
    app = App("shop")
    topic = app.topic("orders", key=str, value=int)
    (app.batch_handler if batch else app.handler)(topic)(handler)
    task = ShadowTask("main", 1, 3, 0, {}, {}, 9)
    group = _shadowed(declared_app(app).main, ShadowSpec("shop", "shop-shadow-1", "", {}, [task]))
    assert group.tasks == 3
    context = RuntimeContext({}, {}, lambda _: None)
    context.outputs.append(("bills", b"of another record", None, 0, ()))
    group.bindings[0].function(given, context)
    return context.outputs


@pytest.mark.parametrize("batch", [False, True])
def test_an_output_names_the_partition_of_its_record(batch: bool) -> None:
    """The outputs of two partitions have no order, also where one task processes both."""

    def handler(event: Any, ctx: Any) -> None:
        ctx.outputs.append(("bills", b"k", b"1", 5, [("made", b"x")]))
        ctx.outputs.append(("bills", b"k", b"2", 5, ()))

    event = SimpleNamespace(partition=4)
    before, *own = _handled(handler, [event] if batch else event, batch=batch)
    assert before[4] == ()
    source = (SOURCE_HEADER, b"main/4")
    assert own == [("bills", b"k", b"1", 5, [("made", b"x"), source]), ("bills", b"k", b"2", 5, [source])]

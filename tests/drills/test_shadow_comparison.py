"""Outputs and rows of a shadow app beside those of the live app, which both are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskChoice, TaskId, TopicPartition, shadow_app, shadow_output
from pipeline.core.position import AppliedPosition, encode_position
from pipeline.drills.drill import Run
from pipeline.drills.intent import IntentFile
from pipeline.drills.shadow_comparison import OutputEnds, compare_rows, compare_topics
from pipeline.drills.shadow_spec import ENDS, SOURCE_HEADER, STATES, ShadowSpec, ShadowTask
from pipeline.ports import Output, TopicSpec
from pipeline.rocksdb.rocks import RocksStores
from pipeline.testing.memory_clients import MemoryProducers
from tests.support.drills.scenes import APP, observer_of, scene_of, settings_of
from tests.support.runtime.fleet import Fleet

SHADOW = shadow_app(APP, 17)
TOPICS = ("numbers", "sums")


class _Bench:
    """A live app at rest, and the topics of its shadow app."""

    def __init__(self, directory: Path) -> None:
        self.fleet = Fleet.at_rest("a")
        self.environment = self.fleet.sums.driver.environment()
        scene = scene_of(self.fleet, settings_of(directory), local=("a",))
        observer = observer_of(self.fleet)
        self.run = Run(scene, observer, IntentFile(directory, APP), lambda _: None, (), [])
        outputs = {name: shadow_output(SHADOW, name) for name in TOPICS}
        tasks = [
            ShadowTask("main", number, self.fleet.partitions, 0, {"numbers": 0}, {"numbers": 99}, 9)
            for number in range(self.fleet.partitions)
        ]
        self.spec = ShadowSpec(APP, SHADOW, str(directory), outputs, tasks)
        for name in outputs.values():
            self.fleet.broker.create(TopicSpec(name, self.fleet.partitions))

    def live(self) -> list[Output]:
        """The outputs of the live app, as its shadow app would send them."""
        return [
            Output(
                self.spec.outputs["sums"],
                record.key(),
                record.value(),
                1,
                [*(record.headers() or ()), (SOURCE_HEADER, b"main/%d" % (record.partition() or 0))],
            )
            for record in self.fleet.broker.records("sums")
        ]

    def send(self, outputs: Sequence[Output]) -> None:
        client = MemoryProducers(self.fleet.broker).open(f"{SHADOW}.main.0")
        client.init()
        client.begin()
        client.send(outputs)
        client.flush()
        client.commit()

    def compare(self) -> int:
        """Compare all topics as they are now."""
        topics = self.environment.cluster.describe(list(TOPICS))
        reader = self.run.scene.reader
        places = [TopicPartition(name, n) for name in TOPICS for n in range(self.fleet.partitions)]
        ends = {place: reader.bounds(place).end for place in places}
        return compare_topics(self.run, self.spec, OutputEnds(ends, ends), topics, self.environment)


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    return _Bench(tmp_path)


def test_equal_outputs_are_counted_and_inputs_are_not_compared(bench: _Bench) -> None:
    """The shadow app has no copy of an input that no handler writes to."""
    outputs = bench.live()
    bench.send(outputs)
    assert bench.compare() == 1
    assert bench.run.effects == []
    assert bench.run.outputs_compared == len(outputs) > 3


def test_a_different_output_is_an_effect_with_its_place(bench: _Bench) -> None:
    """An operator reads the live record from there."""
    first, *others = bench.live()
    bench.send([first._replace(value=None), *others])
    bench.compare()
    (effect,) = bench.run.effects
    live = next(each for each in bench.fleet.broker.records("sums") if each.key() == first.key)
    assert (effect.kind, effect.topic, effect.offset) == (
        "output",
        f"sums[{live.partition()}]",
        live.offset(),
    )
    assert "replayed null value; pipeline runbook shadow-replay-differs" in effect.text


def test_a_compacted_topic_is_not_compared(bench: _Bench) -> None:
    """Kafka deletes outputs of it at any time, so that the two topics differ by chance."""
    bench.fleet.broker.configure("sums", {"cleanup.policy": "compact"})
    assert bench.compare() == 0
    assert bench.run.effects == []
    assert bench.run.notes == ["outputs of sums were not compared: Kafka compacts this topic"]


def test_outputs_are_not_compared_for_a_part_of_the_tasks(bench: _Bench) -> None:
    """An output of another task would be missing from the replay."""
    bench.run.scene.options = replace(bench.run.scene.options, task=TaskChoice(0))
    assert bench.compare() == 0
    assert bench.run.effects == []
    assert "--task replays only a part" in bench.run.notes[0]


def _write(directory: Path, task: TaskId, rows: dict[bytes, bytes | None]) -> None:
    identity = Identity("cluster", "murmur2", {}, {"totals": "x"}, "")
    store = RocksStores(directory, 1 << 20).open(task)
    store.apply(rows, encode_position(AppliedPosition(9, 9, 10, b"x" * 16, {"numbers": 99}, identity)))
    store.close()


def test_rows_of_ids_that_drop_duplicates_are_not_compared(bench: _Bench, tmp_path: Path) -> None:
    """They contain times of the process, which differ in each replay."""
    task = bench.spec.tasks[0]
    _write(tmp_path / ENDS, task.task(APP), {b"\0ids": b"1", b"rows": b"1"})
    _write(tmp_path / STATES, task.task(SHADOW), {b"\0ids": b"2", b"rows": b"1"})
    compare_rows(bench.run, bench.spec, task, bench.environment)
    assert (bench.run.compared, bench.run.equal, bench.run.effects) == (1, 1, [])

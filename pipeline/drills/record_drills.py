"""A drill with a record: poison-record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from pipeline.api.app import DeclaredApp
from pipeline.config import ProducerSettings
from pipeline.core.names import GroupId, TopicPartition
from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run, UnrecoveredError
from pipeline.drills.scene import RefusedDrillError, Scene, environment_of
from pipeline.kafka.event_client import KafkaEventClients
from pipeline.ops.dead_letters.letters import Choice, dead_letter_topic, places_of, read_letters
from pipeline.ports import Record

__all__ = ["PoisonRecord"]

POISON = b"\xff\x00 written by pipeline drill poison-record"
_DELIVERY_S = 30.0
_NO_END = 2**63 - 1


class PoisonRecord(Drill):
    """A record that no handler can decode."""

    name = "poison-record"
    summary = "write one record that cannot be decoded to an input topic named in drills.poison_topics"
    hypothesis = "The record becomes one dead letter of each group, and its task continues without a pause."

    def __init__(self, declared: DeclaredApp | None = None) -> None:
        self._declared = declared

    def check(self, scene: Scene) -> Iterator[str]:
        topic = self._topic(scene)
        yield f"drills.poison_topics names {topic}"
        if self._declared is None:
            raise RefusedDrillError(
                "code-needed",
                f"the error policies of the handlers of {topic} are not known",
                hint="name the app as MODULE:APP with --app",
            )
        strict = [
            group.name
            for group in self._declared.groups
            if any(each.topic.name == topic and each.on_error != "dead_letter" for each in group.bindings)
            or any(each.topic.name == topic for each in group.sinks)
        ]
        if strict:
            raise RefusedDrillError(
                "no-dead-letters",
                f"group {strict[0]} does not send bad records of {topic} to its dead letters: the record would stop "
                "its task, or be lost",
                hint="declare on_error='dead_letter' for its handlers of this topic",
            )
        if not self._groups(topic):
            raise RefusedDrillError(
                "not-an-input", f"no group of app {scene.app} reads {topic}", hint="name an input"
            )
        yield f"all groups that read {topic} send bad records to their dead letters"

    def plan(self, scene: Scene) -> Plan:
        topic = self._topic(scene)
        return Plan(
            f"topic {topic}",  # the record has no key, so its partition is known when it is delivered
            [f"produce {len(POISON)} bytes that are not valid to {topic}"],
            f"one dead letter in each of the groups {', '.join(self._groups(topic))}",
            [],
            0.0,
        )

    def perform(self, run: Run, plan: Plan) -> None:
        del plan
        topic = self._topic(run.scene)
        groups = self._groups(topic)
        before = run.observer.look(status=True).open_letters
        ends = _letter_ends(run.scene, groups)
        delivered: list[Record] = []
        with closing(KafkaEventClients(run.scene.settings.kafka, ProducerSettings()).open()) as client:
            run.act(f"produce a record that cannot be decoded to {topic}")
            headers = [("pipeline-drill", run.scene.options.reason.encode() or b"poison-record")]
            client.enqueue(
                topic, None, POISON, 0, headers, lambda error, record: _take(delivered, error, record)
            )
            deadline_s = run.clock.monotonic_s() + _DELIVERY_S
            while not delivered and run.clock.monotonic_s() < deadline_s:
                client.serve(0.2)
        if not delivered:
            raise UnrecoveredError(
                f"the delivery of the record to {topic} did not happen in {_DELIVERY_S:.0f} s"
            )
        place = f"{topic}[{delivered[0].partition()}] at offset {delivered[0].offset()}"
        run.proves(f"the record is {place}")
        run.wait(
            lambda: run.observer.samples[-1].open_letters >= before + len(groups),
            "a dead letter in each group",
        )
        run.proves(f"{counted(len(groups), 'dead letter')} {'was' if len(groups) == 1 else 'were'} written")
        run.notes += [_cleanup(run.scene, group, ends, delivered[0]) for group in groups]
        partition = delivered[0].partition()
        assert partition is not None  # noqa: S101 - of a delivered record
        run.wait_until_committed(run.observer.samples[-1].that_read(groups, partition), acquired=False)

    def _groups(self, topic: str) -> list[str]:
        declared = self._declared.groups if self._declared is not None else []
        return [group.name for group in declared if any(each.name == topic for each in group.inputs)]

    @staticmethod
    def _topic(scene: Scene) -> str:
        if not scene.settings.drills.poison_topics:
            raise RefusedDrillError(
                "no-poison-topic",
                "drills.poison_topics names no topic. The record stays in its topic, and all readers get it",
                hint='set poison_topics = ["TOPIC"] under [drills] in pipeline.toml',
            )
        return scene.settings.drills.poison_topics[0]


def _letter_ends(scene: Scene, groups: Sequence[str]) -> dict[TopicPartition, int]:
    """The ends of the dead-letter topics. A partition that does not exist yet is missing."""
    names = [GroupId(scene.app, group).dead_letter_topic for group in groups]
    places = [place for info in scene.cluster.describe(names).values() for place in places_of(info)]
    return {place: scene.reader.bounds(place).end for place in places}


def _cleanup(scene: Scene, group: str, ends: Mapping[TopicPartition, int], record: Record) -> str:
    """The command that discards the dead letter of the record, which is after these ends."""
    target, failed = scene.options.target, (record.topic(), record.partition(), record.offset())
    where = f"{failed[0]}[{failed[1]}] at offset {failed[2]}"
    with environment_of(scene) as environment:
        topic = dead_letter_topic(GroupId(scene.app, group), environment.cluster)
        within = {place.partition: range(ends.get(place, 0), _NO_END) for place in places_of(topic)}
        for letter in read_letters(topic, Choice(partition=failed[1]), environment, within):
            if letter.letter.origin[:3] == failed:
                command = f"pipeline deadletters discard {target} {letter.name} --group {group}"
                return f"the dead letter of {where} stays open: {command}"
    return (
        f"the dead letter of {where} was not found: pipeline deadletters list {target} --group {group} --open"
    )


def _take(delivered: list[Record], error: object, record: Record) -> None:
    if error is None:
        delivered.append(record)

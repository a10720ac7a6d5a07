"""When a worker's calls on the world began and ended, and how the way to a commit divides into stages.

`watched` wraps the ports of a `Environment`, so that the worker under measurement is the one that is shipped and knows
nothing of it. What is recorded: the calls of CALLS, every named step, and where a poll's records came from.

*Kafka's part* of a stage is the time inside calls of the client that wait for a broker (KAFKA) while no task's
RocksDB is being opened, which holds up the whole interpreter (HOLDS). *Our part* is all the rest: Python, imports,
making clients, RocksDB, replay, the commit interval.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from pipeline.core.names import TaskId
from pipeline.ports import Step
from pipeline.runtime.environment import Environment

__all__ = ["STAGES", "Event", "Part", "Record", "Timeline", "parts", "read_record", "watched"]

T = TypeVar("T")

# What a call returns is watched, too, under a name of its own.
OPENS = {"producers.open": "producer", "sources.open": "source", "journals": "reader"}
KAFKA = frozenset(
    {
        "cluster.cluster_id",
        "cluster.committed",
        "cluster.create",
        "cluster.describe",
        "producer.commit",
        "producer.flush",
        "producer.init",
        "reader.bounds",
        "reader.read",
        "source.poll",
    }
)
# These keep the interpreter to themselves: whoever waits for Kafka meanwhile waits for us.
HOLDS = frozenset({"stores.open"})
CALLS = KAFKA | HOLDS | {"journals", "producers.open", "source.assign", "sources.open"}
# What ends each stage stands in `parts`.
STAGES = (
    "interpreter",
    "imports",
    "app, cluster, genesis",
    "fence",
    "journal's end",
    "RocksDB open",
    "replay",
    "acquire",
    "taken live",
    "first record",
    "handler, interval",
    "commit",
    "seen by a reader",
)


class Event(msgspec.Struct, frozen=True):
    """A call on the world, or a named step (which takes no time). `partition`: the task's, where it has one."""

    name: str
    thread: int
    began_s: float
    ended_s: float
    partition: int = -1


class Record(msgspec.Struct, frozen=True):
    """One process until its tasks had committed. `cpu_s`: of all its threads."""

    events: list[Event]
    cpu_s: float


class Part(NamedTuple):
    """A stage's seconds."""

    ours_s: float
    kafka_s: float


class Timeline:
    """Collects events of one process until `finish`. `ports.Steps`, from any thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.open = True

    def mark(self, name: str, at_s: float | None = None) -> None:
        """Something that has just happened, or happened at `at_s`."""
        now = time.monotonic() if at_s is None else at_s
        self.note(Event(name, threading.get_ident(), now, now))

    def note(self, event: Event) -> None:
        if self.open:
            self._events.append(event)

    def reached(self, step: Step, task: TaskId) -> None:
        now = time.monotonic()
        self.note(Event(step.value, threading.get_ident(), now, now, task.number))

    def finish(self, file: Path) -> None:
        """Write the events, whole or not at all, and collect no more."""
        self.open = False
        draft = file.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(Record(self._events, time.process_time())))
        draft.rename(file)


def read_record(file: Path) -> Record:
    """What `Timeline.finish` wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Record)


def watched(environment: Environment, timeline: Timeline) -> Environment:
    """The same world, its clients' calls recorded."""
    return replace(
        environment,
        cluster=_watched(environment.cluster, "cluster", timeline),
        producers=_watched(environment.producers, "producers", timeline),
        journals=_recording(environment.journals, "journals", timeline),
        stores=_watched(environment.stores, "stores", timeline),
        sources=_watched(environment.sources, "sources", timeline),
    )


class _Watched:
    """Stands for a port. A method is wrapped when it is first asked for."""

    def __init__(self, port: object, name: str, timeline: Timeline) -> None:
        self._port = port
        self._name = name
        self._timeline = timeline

    def __getattr__(self, method: str) -> Any:
        name = f"{self._name}.{method}"
        call = getattr(self._port, method)
        if name in CALLS:
            call = _recording(call, name, self._timeline)
        setattr(self, method, call)
        return call


def _watched(port: T, name: str, timeline: Timeline) -> T:
    return cast("T", _Watched(port, name, timeline))


def _recording(call: Callable[..., Any], name: str, timeline: Timeline) -> Callable[..., Any]:
    def recorded(*arguments: Any, **named: Any) -> Any:
        began_s = time.monotonic()
        result = call(*arguments, **named)
        if timeline.open:
            event = Event(name, threading.get_ident(), began_s, time.monotonic())
            partitions = _partitions(name, arguments, result)
            for partition in partitions or [-1]:
                # One call is one stretch of time, whichever partitions it was about.
                timeline.note(msgspec.structs.replace(event, partition=partition))
        if name == "reader.read":
            return _recorded_reads(result, timeline)
        return _watched(result, OPENS[name], timeline) if name in OPENS else result

    return recorded


def _partitions(name: str, arguments: Sequence[Any], result: Any) -> list[int]:
    if name == "source.poll":
        return sorted({record.partition() for record in result.records})
    if name == "source.assign":
        return sorted({partition.partition for partition in arguments[0]})
    if name == "stores.open":
        return [arguments[0].number]
    if name == "producers.open":
        _, _, number = str(arguments[0]).rpartition(".")
        return [int(number)] if number.isdigit() else []
    return []


def _recorded_reads(chunks: Iterator[Any], timeline: Timeline) -> Iterator[Any]:
    """The time between two chunks is the reader's only while it is asked for the next one."""
    while True:
        began_s = time.monotonic()
        chunk = next(chunks, None)
        timeline.note(Event("reader.read", threading.get_ident(), began_s, time.monotonic()))
        if chunk is None:
            return
        yield chunk


def parts(events: Sequence[Event], partition: int, spawned_s: float, seen_s: float) -> Mapping[str, Part]:
    """The way of one task from the start of the process to the reader of its first commit, by STAGES.

    It runs on three threads after each other: the main one (to the restore), the restore's, the main one again
    (to the seal), and the commit's. Each stage ends where the next begins, so the sum is `seen_s - spawned_s`.
    """
    own = [event for event in events if event.partition == partition]

    def first(name: str, after_s: float = 0.0) -> Event:
        return next(event for event in own if event.name == name and event.began_s >= after_s)

    main = events[0].thread
    opened, fenced = first("producers.open"), first(Step.AFTER_FENCE.value)
    store = first("stores.open")
    restored, acquired = first(Step.BEFORE_ACQUIRE.value), first(Step.AFTER_ACQUIRE.value)
    assigned = first("source.assign")
    polled = first("source.poll", assigned.ended_s)
    begun = first(Step.BEFORE_BEGIN.value, acquired.ended_s)
    committed = first(Step.AFTER_COMMIT.value, begun.ended_s)
    ends: list[tuple[float, int | None]] = [  # no thread: nothing here waits for Kafka, or all of it does
        (next(event.ended_s for event in events if event.name == "entered"), main),
        (next(event.ended_s for event in events if event.name == "imported"), main),
        (opened.began_s, main),
        (fenced.ended_s, opened.thread),
        (store.began_s, opened.thread),
        (store.ended_s, opened.thread),
        (restored.ended_s, opened.thread),
        (acquired.ended_s, opened.thread),
        (assigned.ended_s, None),
        (polled.ended_s, main),
        (begun.ended_s, None),
        (committed.ended_s, committed.thread),
        (seen_s, None),
    ]
    found: dict[str, Part] = {}
    began_s = spawned_s
    for stage, (end_s, thread) in zip(STAGES, ends, strict=True):
        ended_s = min(end_s, seen_s)  # a reader may know of a commit before our thread is running again
        kafka_s = _waiting(events, thread, began_s, ended_s)
        if stage == STAGES[-1]:
            kafka_s = ended_s - began_s
        found[stage] = Part(ended_s - began_s - kafka_s, kafka_s)
        began_s = ended_s
    return found


def _waiting(events: Sequence[Event], thread: int | None, began_s: float, ended_s: float) -> float:
    """How long one thread waited for Kafka between two moments: inside calls of KAFKA, but nobody in HOLDS."""
    calls = [
        (event.began_s, event.ended_s) for event in events if event.thread == thread and event.name in KAFKA
    ]
    held = [(event.began_s, event.ended_s) for event in events if event.name in HOLDS]
    return _length(calls + held, began_s, ended_s) - _length(held, began_s, ended_s)


def _length(stretches: Sequence[tuple[float, float]], began_s: float, ended_s: float) -> float:
    """The length of the union of `stretches` between two moments."""
    total_s, reached_s = 0.0, began_s
    for begin_s, end_s in sorted(stretches):
        total_s += max(0.0, min(end_s, ended_s) - max(begin_s, reached_s))
        reached_s = max(reached_s, min(end_s, ended_s))
    return total_s

"""What the demonstration does to workers and loader, one fault after the other, and what each cost.

A fault is over when every task is live again where it belongs, and its own outputs have gone on.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.flights.outputs import Outputs, Poll, TopicPartition
from pipeline.demo.processes import DemoError, Processes, Worker

__all__ = [
    "APP",
    "LOADS",
    "PARTITIONS",
    "Fault",
    "Story",
    "input_partitions",
    "load_options",
    "output_partitions",
    "show",
]

APP = "examples.flights.app:app"
PARTITIONS = 12
LOADS = {"flights-by-carrier": "carrier", "flights-by-tail": "tailnum"}  # topics and their keys
GROUPS = {"main": "carrier-delays", "tails": "tail-hops"}  # where their outputs go
TASKS = PARTITIONS * len(GROUPS)
RATE = 6_500  # records a second into each topic: 52 s, and the two cores are not all that is measured


@dataclass(frozen=True)
class Fault:
    """`moved`: tasks that changed their worker. `expected`: how many may. Seconds: None if there was nothing to see."""

    what: str
    moved: int | None
    expected: range | None
    recovered_s: float | None
    others_pause_s: float | None


class Story:
    """`tell` yields whenever it waits; in between somebody must poll into `outputs`, and let `processes` look."""

    def __init__(
        self, console: Console, chance: random.Random, processes: Processes, poll: Poll, outputs: Outputs
    ) -> None:
        self._console = console
        self._chance = chance
        self._processes = processes
        self._poll = poll
        self._outputs = outputs
        self._loaders: dict[str, subprocess.Popen[bytes]] = {}
        self._load_began_s = 0.0
        self._victim = ""
        self._wanted = 0
        self.faults: list[Fault] = []
        self.kills = 0

    def tell(self, archive: Path, flights: int, outputs: int) -> Iterator[None]:
        """All of it, until `outputs` outputs are there."""
        self._wanted = outputs
        for name in ("a", "b", "c"):
            self._processes.worker(name)
        self._load_began_s = time.monotonic()
        for topic in LOADS:
            self._load(topic, archive)
        yield from self._until(lambda: self._processes.at_rest(TASKS))
        self._say(
            f"3 workers share {TASKS} tasks; {len(LOADS)} loads of {flights:,} flights, {RATE:,} records/s each"
        )
        some = self._chance.uniform(0.04, 0.08) * outputs
        yield from self._until(lambda: self._outputs.count >= some)
        yield from self._kill_loader(self._chance.choice(list(LOADS)), archive)
        for fault in (self._kill_for_good, self._join, self._kill_and_restart, self._kill_and_lose_the_disk):
            rest_s = time.monotonic() + self._chance.uniform(0.5, 1.5)
            yield from self._until(lambda rest_s=rest_s: time.monotonic() >= rest_s)  # type: ignore[misc]
            yield from fault()
        yield from self._until(lambda: self._outputs.count >= outputs)
        yield from self._until(lambda: self._ended(*self._loaders.values()))
        yield from self._until(lambda: self._processes.at_rest(TASKS))

    def _kill_for_good(self) -> Iterator[None]:
        victim = self._any_worker()
        had = self._processes.tasks_of(victim)
        yield from self._kill(victim, f"{victim.name} killed for good", lambda: None, len(had))

    def _kill_and_restart(self) -> Iterator[None]:
        victim = self._any_worker()

        def restart() -> None:
            self._processes.worker(victim.name)

        had = self._processes.tasks_of(victim)
        yield from self._kill(victim, f"{victim.name} killed, restarted", restart, 0, len(had))

    def _kill_and_lose_the_disk(self) -> Iterator[None]:
        victim = self._any_worker()

        def restart() -> None:
            self._processes.worker(victim.name, empty_disk=True)

        had = self._processes.tasks_of(victim)
        yield from self._kill(victim, f"{victim.name} killed, disk lost", restart, 0, len(had))
        # The others may have taken over all tasks before this process had started; then it has copied its share.
        fetched = len(self._processes.workers[-1].from_checkpoint)
        if not fetched:
            raise DemoError("the empty disk was restored without a checkpoint")
        self._say(f"          its new disk has {fetched} tasks from a checkpoint and the journal after it")

    def _kill(
        self, victim: Worker, what: str, then: Callable[[], None], had_to: int, back: int = 0
    ) -> Iterator[None]:
        """SIGKILL, and wait until its tasks go on.

        `back`: tasks that others may take over before a restarted process claims them, and then give back.
        """
        tasks, moved = self._processes.tasks_of(victim), self._processes.moved
        affected, others = self._steady(tasks)
        victim.child.kill()
        victim.child.wait()
        began_s = time.monotonic()
        self.kills += 1
        self._say_when(what)
        then()
        ends = self._poll.ends(affected)

        def firsts() -> list[float | None]:
            return [self._outputs.first_beyond(partition, end) for partition, end in ends.items()]

        yield from self._until(lambda: self._processes.at_rest(TASKS))
        yield from self._until(lambda: None not in firsts() or self._outputs.count >= self._wanted)
        at = [first for first in firsts() if first is not None]
        recovered_s = max(at) - began_s if len(at) == len(ends) and at else None
        self._note(what, moved, range(had_to, had_to + 2 * back + 1), recovered_s, others, began_s)

    def _join(self) -> Iterator[None]:
        moved, before = self._processes.moved, self._processes.owners
        had_to = TASKS // (len(self._processes.alive) + 1)
        began_s = time.monotonic()
        self._say_when("d joined")
        new = self._processes.worker("d")
        yield from self._until(lambda: self._processes.at_rest(TASKS) and len(new.live) >= had_to)
        until_s = time.monotonic() + 1.0  # the last one has gone on
        yield from self._until(lambda: time.monotonic() >= until_s)
        went, stayed = self._steady({task for task in before if task in self._processes.tasks_of(new)})
        pause_s = self._outputs.longest_pause_s(went, began_s, time.monotonic())
        self._note("d joined", moved, range(had_to, had_to + 1), pause_s, stayed, began_s)

    def _kill_loader(self, topic: str, archive: Path) -> Iterator[None]:
        partitions = input_partitions(topic)
        loader = self._loaders[topic]
        loader.kill()
        if loader.wait() != -signal.SIGKILL:
            raise DemoError("the loader was done before it could be killed")
        began_s = time.monotonic()
        self.kills += 1
        what = f"loader killed ({topic})"
        self._say_when(what)
        end = sum(self._poll.ends(partitions).values())
        self._load(topic, archive)
        # What it had not committed is aborted, which takes an offset in each partition.
        yield from self._until(lambda: self._poll.loaded(partitions) > end + len(partitions))
        self.faults.append(Fault(what, None, None, time.monotonic() - began_s, None))

    def _note(
        self,
        what: str,
        moved_before: int,
        expected: range,
        recovered_s: float | None,
        others: list[TopicPartition],
        began_s: float,
    ) -> None:
        now = time.monotonic()
        loading = not self._ended(*self._loaders.values())
        pause_s = self._outputs.longest_pause_s(others, began_s, now) if loading else None
        self.faults.append(Fault(what, self._processes.moved - moved_before, expected, recovered_s, pause_s))

    def _steady(self, tasks: set[str]) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Output partitions with enough to be seen: those of these tasks, and the others."""
        mine = {
            TopicPartition(GROUPS[group], int(number)) for _, group, number in (t.split("/") for t in tasks)
        }
        steady = self._outputs.steady(output_partitions(), self._load_began_s)
        return [p for p in steady if p in mine], [p for p in steady if p not in mine]

    def _any_worker(self) -> Worker:
        """But not the same one twice in a row."""
        self._victim = self._chance.choice([w for w in self._processes.alive if w.name != self._victim]).name
        return next(worker for worker in self._processes.alive if worker.name == self._victim)

    def _load(self, topic: str, archive: Path) -> None:
        self._loaders[topic] = self._processes.loader(topic, archive, *load_options(topic, RATE))

    def _ended(self, *loaders: subprocess.Popen[bytes]) -> bool:
        if any(loader.poll() not in {None, 0} for loader in loaders):
            raise DemoError("a loader failed")
        return all(loader.poll() == 0 for loader in loaders)

    def _until(self, condition: Callable[[], bool]) -> Iterator[None]:
        while not condition():
            yield

    def _say_when(self, what: str) -> None:
        self._say(f"  {time.monotonic() - self._load_began_s:4.1f} s  {what}")

    def _say(self, text: str) -> None:
        self._console.print(text)


def load_options(topic: str, rate: int) -> list[str]:
    """The options of `pipeline produce` for a topic of LOADS."""
    return [
        "--format", "csv", "--key", LOADS[topic], "--null", "NA", "--timestamp", "time_hour",
        "--on-missing-key", "null", "--rate", str(rate),
    ]  # fmt: skip


def input_partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]


def output_partitions() -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic in GROUPS.values() for number in range(PARTITIONS)]


def show(faults: list[Fault], console: Console) -> None:
    """Tasks moved, and expected to; until its own outputs went on, and the longest that those of others paused."""
    table = Table(box=None, pad_edge=False)
    table.add_column("fault", no_wrap=True)
    for heading in ("moved", "expected", "back after", "others' pause"):
        table.add_column(heading, justify="right")
    for fault in faults:
        cells = (fault.moved, _shown(fault.expected), fault.recovered_s, fault.others_pause_s)
        table.add_row(
            fault.what,
            *("-" if c is None else f"{c:.1f} s" if isinstance(c, float) else f"{c}" for c in cells),
        )
    console.print(table)


def _shown(expected: range | None) -> str | None:
    if expected is None or len(expected) == 1:
        return None if expected is None else f"{expected[0]}"
    return f"{expected[0]} to {expected[-1]}"

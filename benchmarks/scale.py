"""A fleet of 1,000 workers with 10,000 tasks, simulated: `make bench-scale`.

The workers decide with the rules of real workers: `Roster.assignment` (the ring), `decide`, `CommitRate` and
`TaskPace`. Notes are encoded and decoded as on the workers' topic. What is simulated is Kafka and time:

    round       all workers have read all notes of the round before, decide, and write their notes
    restore     ends in the round after it has begun
    worker      equal rosters give equal assignments, so one assignment is computed in each round. A sample of workers
                computes its own, from the decoded notes

The events: all workers start at once; one is lost; one joins; one is restarted; a tenth is lost at once. In each, every
task must be live exactly once at the end, shares may differ by one, and only tasks that must move may move.

The figures of brokers are estimates: counts of the simulation, times the costs that were measured on one broker.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from pipeline.config import WorkerSettings
from pipeline.core.membership import (
    AssignmentAction,
    Member,
    Roster,
    TaskRole,
    decide,
    encode_member,
    ring_parameters,
)
from pipeline.core.names import TaskId
from pipeline.core.notes import Claim, Owner, decode_note, encode_note
from pipeline.core.recovery_time import WATCHED_S
from pipeline.runtime.assignment.roster import FOLLOW_S, SMALL_FLEET
from pipeline.runtime.commit.commit_rate import CommitRate, TaskPace
from pipeline.testing.system import ManualClock

__all__ = ["Fleet", "Outcome", "commits_per_s", "main", "run"]

WORKERS = 1_000
TASKS = 10_000
SAMPLE = 5
MAX_ROUNDS = 20
APP, GROUP = "fleet", "main"
# Measured on one broker (docs/decisions/0041): CPU milliseconds of a transaction that writes one partition.
COMMIT_CPU_MS = 2.9
COMMIT_S = 0.005
# A member in an answer of the group's coordinator: its client id, its member id (the client id and 37 characters), its
# host, and the bytes of subscription and assignment.
MEMBER_BYTES = 37 + 10 + 80
SIMULATED_S = 20.0
STEP_S = 0.001


@dataclass
class Outcome:
    """What an event has cost. `seconds`: until all tasks are live, without restores. `decide_s`: of one worker."""

    event: str
    moved: int = 0
    least: int = 0
    rounds: int = 0
    notes: int = 0
    note_bytes: int = 0
    assign_s: float = 0.0
    decide_s: float = 0.0
    decode_s: float = 0.0
    seconds: float = 0.0


@dataclass
class Fleet:
    """The workers as they see each other, and what each does about its tasks."""

    tasks: list[TaskId]
    members: dict[str, Member] = field(default_factory=dict)
    owners: dict[TaskId, Owner] = field(default_factory=dict)
    claims: dict[TaskId, Claim] = field(default_factory=dict)
    places: dict[str, dict[TaskId, TaskRole]] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(7))  # noqa: S311 - a sample of workers
    _processes: int = 0

    @classmethod
    def of(cls, tasks: int) -> Fleet:
        return cls([TaskId(APP, GROUP, number) for number in range(tasks)])

    def join(self, worker: str) -> None:
        """A process of the worker starts; an earlier one has ended."""
        self._processes += 1
        process = f"{self._processes:013d}-{self._processes:08x}"
        self.members[worker] = Member(worker, process, 1, ring_parameters(self.tasks))
        self.places[worker] = {}

    def lose(self, worker: str) -> None:
        """The process ends without a word, and a peer notes it."""
        del self.members[worker]
        del self.places[worker]

    def run(self, event: str, changes: Callable[[], None], detection_s: float) -> Outcome:
        """Apply the changes, and let the fleet work until nothing changes any more."""
        before = self._running()
        changes()
        outcome = Outcome(event)
        while self._round(outcome):
            if outcome.rounds > MAX_ROUNDS:
                raise BenchmarkError(f"{event}: still changing after {MAX_ROUNDS} rounds")
        after = self._running()
        self._check(event, after)
        outcome.moved = sum(after[task] != worker for task, worker in before.items())
        outcome.least = self._least(before)
        factor = max(1.0, len(self.members) / SMALL_FLEET)
        outcome.seconds = detection_s + outcome.rounds * FOLLOW_S * factor
        return outcome

    def _running(self) -> dict[TaskId, str]:
        return {
            task: worker
            for worker, places in self.places.items()
            for task, role in places.items()
            if role is TaskRole.LIVE
        }

    def _least(self, before: Mapping[TaskId, str]) -> int:
        """The tasks that must move: those of workers that have left, and what is above the largest share."""
        loads = Counter(worker for worker in before.values() if worker in self.members)
        lost = sum(worker not in self.members for worker in before.values())
        low, more = divmod(len(self.tasks), len(self.members))
        above = sorted((load - low for load in loads.values()), reverse=True)
        kept_above = sum(1 for over in above if over > 0)
        return lost + sum(over for over in above if over > 0) - min(more, kept_above)

    def _check(self, event: str, after: Mapping[TaskId, str]) -> None:
        counts = Counter(after.values())
        loads = [counts[worker] for worker in self.members]
        if len(after) != len(self.tasks) or max(loads) - min(loads) > 1:
            raise BenchmarkError(
                f"{event}: {len(after)} of {len(self.tasks)} tasks run, {min(loads)} to {max(loads)} each"
            )

    def _round(self, outcome: Outcome) -> bool:
        """One round of all workers. Returns whether any of them has done anything."""
        roster = Roster(tuple(self.members.values()), dict(self.owners), dict(self.claims))
        began = time.perf_counter()
        assigned = roster.assignment(self.tasks)
        outcome.assign_s = max(outcome.assign_s, time.perf_counter() - began)
        share: dict[str, dict[TaskId, str]] = {worker: {} for worker in self.members}
        for task, worker in assigned.items():
            share[worker][task] = worker
        notes: list[tuple[TaskId, Owner | Claim]] = []
        for worker, member in self.members.items():
            places = self.places[worker]
            # The other tasks need no action: they are assigned to others, and have no place here.
            mine = share[worker] | {task: assigned[task] for task in places}
            notes += self._advance(worker, member, decide(roster, member, mine, places, settled=True))
        self._sample(roster, assigned, outcome)
        self._publish(notes, outcome)
        outcome.rounds += bool(notes)
        return bool(notes)

    def _advance(
        self, worker: str, member: Member, actions: Mapping[TaskId, AssignmentAction]
    ) -> Iterable[tuple[TaskId, Owner | Claim]]:
        """What was begun in the round before has ended; then the new actions begin."""
        places = self.places[worker]
        for task, role in list(places.items()):
            if role is TaskRole.RESTORING:
                places[task] = TaskRole.LIVE
                known = self.owners.get(task)
                yield task, Owner(known.seq + 2 if known is not None else 1, worker, member.process)
            elif role is TaskRole.STANDBY and task not in actions:
                claim = Claim(worker, member.process, ready=True)
                if self.claims.get(task) != claim:
                    yield task, claim
        for task, action in actions.items():
            if action is AssignmentAction.CLAIM:
                places[task] = TaskRole.RESTORING
                yield task, Claim(worker, member.process)
            elif action is AssignmentAction.START_STANDBY:
                places[task] = TaskRole.STANDBY
                yield task, Claim(worker, member.process)
            else:
                del places[task]
                if action is AssignmentAction.RELEASE:
                    owner = self.owners[task]
                    yield task, owner._replace(seq=owner.seq + 1, released=True)

    def _sample(self, roster: Roster, assigned: Mapping[TaskId, str], outcome: Outcome) -> None:
        """Some workers compute everything themselves: all must come to the same assignment."""
        for worker in self.random.sample(sorted(self.members), min(SAMPLE, len(self.members))):
            own = Roster(roster.members, dict(roster.owners), dict(roster.claims))
            began = time.perf_counter()
            found = own.assignment(self.tasks)
            decide(own, self.members[worker], found, self.places[worker], settled=True)
            outcome.decide_s = max(outcome.decide_s, time.perf_counter() - began)
            if found != assigned:
                raise BenchmarkError(f"{outcome.event}: worker {worker} computes another assignment")

    def _publish(self, notes: Iterable[tuple[TaskId, Owner | Claim]], outcome: Outcome) -> None:
        """All workers read the notes, as they are encoded."""
        encoded = [encode_note(task, about) for task, about in notes]
        began = time.perf_counter()
        decoded = [decode_note(APP, value) for _, value in encoded]
        outcome.decode_s += time.perf_counter() - began
        outcome.notes += len(encoded)
        outcome.note_bytes += sum(len(key) + len(value) for key, value in encoded)
        for note in decoded:
            if note is None:
                raise BenchmarkError(f"{outcome.event}: a note cannot be read")
            task, about = note
            if isinstance(about, Claim):
                self.claims[task] = about
            elif isinstance(about, Owner):
                self._take(outcome.event, task, about)

    def _take(self, event: str, task: TaskId, owner: Owner) -> None:
        known = self.owners.get(task)
        if known is not None and owner.order < known.order:
            return
        self.owners[task] = owner
        live = [worker for worker, places in self.places.items() if places.get(task) is TaskRole.LIVE]
        if len(live) > 1:
            raise BenchmarkError(f"{event}: task {task} runs on {' and '.join(live)} at once")


def commits_per_s(tasks: int, records_per_s: float, workers: int, settings: WorkerSettings) -> float:
    """The commits per second of one worker with this many tasks, by its own pace in virtual time.

    Each task gets `records_per_s` records, at random moments. A commit takes COMMIT_S.
    """
    clock, random = ManualClock(), Random(3)  # noqa: S311 - arrivals
    rate = CommitRate(clock, settings.max_commits_per_s, settings.commit_interval_ms)
    paces = [TaskPace(TaskId(APP, GROUP, number), rate, {}) for number in range(tasks)]
    arrivals = [(random.expovariate(records_per_s), number) for number in range(tasks)]
    heapq.heapify(arrivals)
    opened: set[int] = set()
    ends: dict[int, float] = {}
    commits = 0
    while clock.monotonic_s() < SIMULATED_S:
        clock.sleep(STEP_S)
        rate.turn(workers)
        for number in [number for number, at in ends.items() if at <= clock.monotonic_s()]:
            del ends[number]
            paces[number].ended()
        while arrivals[0][0] <= clock.monotonic_s():
            at, number = arrivals[0]
            heapq.heapreplace(arrivals, (at + random.expovariate(records_per_s), number))
            rate.polled(1, more_wait=False)
            if number not in opened:
                opened.add(number)
                paces[number].opened()
        for number in sorted(opened - ends.keys()):
            if paces[number].due(backlog=False):
                opened.discard(number)
                paces[number].began([])
                ends[number] = clock.monotonic_s() + COMMIT_S
                commits += 1
    return commits / SIMULATED_S


def run(workers: int, tasks: int) -> int:
    """Simulate and print. Raises BenchmarkError if a rule of the fleet is broken."""
    console = Console(highlight=False, soft_wrap=True)
    settings = WorkerSettings()
    fleet = Fleet.of(tasks)
    names = [f"worker-{number}" for number in range(workers + 1)]

    def restart() -> None:
        fleet.join(names[1])

    def start() -> None:
        for name in names[:workers]:
            fleet.join(name)

    def lose_many() -> None:
        for name in names[2 : 2 + workers // 10]:
            fleet.lose(name)

    factor = max(1.0, workers / SMALL_FLEET)
    listing_s = settings.membership_interval_s * factor
    joining_s = listing_s + settings.join_delay_s
    died_s = WATCHED_S + FOLLOW_S * factor
    outcomes = [
        fleet.run("all start", start, joining_s),
        fleet.run("one is lost", lambda: fleet.lose(names[0]), died_s),
        fleet.run("one joins", lambda: fleet.join(names[workers]), joining_s),
        fleet.run("one restarts", restart, joining_s),
        fleet.run(f"{workers // 10} are lost", lose_many, died_s),
    ]
    console.print(f"{workers:,} workers, {tasks:,} tasks\n")
    table = Table(
        "event",
        "rounds",
        "tasks moved (least)",
        "notes, kB",
        "seconds until live, without restores",
        "ring, ms",
        "turn of a worker, ms",
        box=None,
    )
    for each in outcomes:
        table.add_row(
            each.event,
            str(each.rounds),
            f"{each.moved:,} ({each.least:,})",
            f"{each.notes:,}, {each.note_bytes / 1000:,.0f}",
            f"{each.seconds:.1f}",
            f"{each.assign_s * 1000:.0f}",
            f"{(each.decide_s + each.decode_s) * 1000:.0f}",
        )
    console.print(table)
    _print_brokers(console, settings, workers, tasks, listing_s)
    return int(any(each.moved > each.least for each in outcomes))


def _print_brokers(
    console: Console, settings: WorkerSettings, workers: int, tasks: int, listing_s: float
) -> None:
    """What the fleet costs the brokers when nothing happens, and with input."""
    name = encode_member(Member("worker-000", "0" * 22, 1, "0" * 12))
    listed = workers * (2 * len(name) + MEMBER_BYTES)
    console.print(
        f"\nmembers: a list has {listed / 1000:,.0f} kB; {workers / listing_s:,.0f} lists a second of all workers, "
        f"{workers * listed / listing_s / 1e6:,.1f} MB/s"
    )
    each = max(1, tasks // workers)
    table = Table("records/s of a task", "commits/s of all workers", "cores of the brokers", box=None)
    for records_per_s in (0.1, 1.0, 10.0, 100.0):
        commits = workers * commits_per_s(each, records_per_s, workers, settings)
        table.add_row(f"{records_per_s:g}", f"{commits:,.0f}", f"{commits * COMMIT_CPU_MS / 1000:,.1f}")
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """`python -m benchmarks.scale [WORKERS TASKS]`."""
    given = sys.argv[1:] if arguments is None else arguments
    workers, tasks = map(int, given) if given else (WORKERS, TASKS)
    try:
        return run(workers, tasks)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

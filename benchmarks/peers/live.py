"""Cases with a running system under steady traffic: latency, recovery from a kill, many partitions, memory.

Each turn has an input topic of its own. All results are verified when the traffic has ended: none is missing, twice or
wrong, also after kills.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import BenchmarkError
from benchmarks.peers.bench import Bench, Job, Turn
from benchmarks.peers.outputs import Tally
from benchmarks.peers.processes import PeerProcess
from benchmarks.peers.records import key_of
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.traffic import Traffic, percentile
from pipeline.core.records import partition_of

__all__ = ["latency", "memory", "partitions", "recovery"]

START_S = 240.0
DRAIN_S = 60.0
RECOVERY_S = 120.0
WARM_S = 10.0
LATENCY_RATE, LATENCY_S = 10_000, 20.0
FILLED, RECOVERY_RATE, STEADY_S = 200_000, 1_000, 5.0
IDLE_S, ACTIVE, ACTIVE_RATE, ACTIVE_S = 15.0, 100, 10, 15.0
LIVE_S = 180.0
NOT_AFFECTED_S = 0.2
MEMORY_RATE, MEMORY_S, MEMORY_STEP_S = 3_000, 150.0, 5.0


@dataclass(frozen=True, slots=True)
class _Live:
    """A running turn with traffic. `filled`: the records that were in the input before."""

    turn: Turn
    traffic: Traffic
    workers: list[PeerProcess]
    filled: int

    def wait(self, results: int, what: str, seconds: float) -> None:
        """Wait until so many results are verified."""
        self.traffic.wait(lambda: self.traffic.outputs >= results, what, seconds, self.require_running)

    def require_running(self) -> None:
        """Raise BenchmarkError if a worker that was not killed has ended."""
        for worker in self.workers:
            worker.require_running()

    def drain(self) -> None:
        """Stop sending, and wait until each record has its result."""
        self.traffic.flow(0)
        time.sleep(0.1)
        self.wait(self.filled + self.traffic.sent, "the results of all records", DRAIN_S)

    def steady(self, seconds: float) -> None:
        """Let it run for a while."""
        began_s = time.monotonic()
        self.traffic.wait(
            lambda: time.monotonic() - began_s > seconds, "time", seconds * 2, self.require_running
        )


@contextmanager
def _running(
    bench: Bench,
    job: Job,
    name: str,
    turn_name: str,
    *,
    filled: int = 0,
    workers: int = 1,
    numbered: bool = False,
) -> Iterator[_Live]:
    """Start the workers. `numbered`: partition p has the account p, whatever the hash of its key."""
    source = f"{turn_name}-input"
    bench.topics.create([source], job.partitions)
    with Turn(bench, job, turn_name, SYSTEMS[name], source, 1) as turn:
        tally = Tally(turn.kind, job.records, job.keys)
        traffic = Traffic(
            bench.topics.servers,
            source,
            turn.target,
            job.partitions,
            tally,
            keys=job.keys,
            first=filled,
            numbered=numbered,
        )
        started = [turn.start(f"worker-{number + 1}") for number in range(workers)]
        with traffic:
            if filled:
                bench.topics.load(source, range(filled), job.keys)
            yield _Live(turn, traffic, started, filled)


def latency(bench: Bench, job: Job, name: str, turn_name: str) -> dict[str, float]:
    """Latency at 10,000 records/s."""
    with _running(bench, job, name, turn_name) as live:
        live.traffic.flow(100)  # until it is up: a backlog would be a part of the latency
        live.wait(1, "the first result", START_S)
        live.traffic.flow(LATENCY_RATE)
        live.steady(WARM_S)
        began_s, before = time.monotonic(), live.workers[0].usage()
        live.steady(LATENCY_S)
        ended_s, after = time.monotonic(), live.workers[0].usage()
        live.drain()
        found = live.traffic.arrivals().latencies_ms(began_s, ended_s)
    return {
        "p50_ms": percentile(found, 0.5),
        "p99_ms": percentile(found, 0.99),
        "cpu_us": (after.cpu_s - before.cpu_s) / len(found) * 1e6,
        "verified": float(live.traffic.outputs),
    }


def recovery(bench: Bench, job: Job, name: str, turn_name: str, fault: str) -> dict[str, float]:
    """From SIGKILL to new results. `fault`: `restart`, `empty-disk` or `take-over`.

    1 The system has the sums of 200 thousand keys, and gets 1,000 records/s.
    2 The worker is killed. It is started again at once, on its disk or on an empty one; or another worker is there.
    3 For each partition, the clock stops at the first result of a record that was sent after the kill.
    """
    with _running(
        bench, job, name, turn_name, filled=FILLED, workers=2 if fault == "take-over" else 1
    ) as live:
        live.wait(FILLED, "the sums", START_S)  # 1
        live.traffic.flow(RECOVERY_RATE)
        live.steady(STEADY_S)
        live.wait(FILLED + live.traffic.sent, "all results before the kill", DRAIN_S)
        killed = live.workers.pop(0)  # 2
        killed_s = killed.kill()
        if fault == "empty-disk":
            live.turn.lose_disk()
        if fault != "take-over":
            live.workers.append(live.turn.start())
        firsts = _Firsts(live.traffic, killed_s, job)  # 3
        live.traffic.wait(
            lambda: firsts.count() == job.partitions,
            "new results of all partitions",
            RECOVERY_S,
            live.require_running,
        )
        live.drain()
    first_s, all_s = min(firsts.seconds), max(firsts.seconds)
    if fault == "take-over" and all_s < NOT_AFFECTED_S:
        raise BenchmarkError("the killed worker had no partition")
    return {"first_s": first_s, "all_s": all_s, "verified": float(live.traffic.outputs)}


class _Firsts:
    """The first new result of each partition after a kill."""

    def __init__(self, traffic: Traffic, killed_s: float, job: Job) -> None:
        self._traffic, self._killed_s, self._job = traffic, killed_s, job
        self._found: dict[int, float] = {}

    @property
    def seconds(self) -> list[float]:
        """The seconds of each partition that has one."""
        return list(self._found.values())

    def count(self) -> int:
        """Look at the results so far; the number of partitions that have one."""
        found = self._traffic.arrivals_after(self._killed_s)
        for number, came_s in found:
            partition = partition_of(key_of(number, self._job.keys), self._job.partitions)
            self._found.setdefault(partition, came_s - self._killed_s)
        return len(self._found)


def partitions(bench: Bench, job: Job, name: str, turn_name: str) -> dict[str, float]:
    """One worker with many partitions: until all are live, at rest, with 100 of them active, and with all.

    Each partition has one account. So the result of its first record shows that it is live.
    """
    with _running(bench, job, name, turn_name, numbered=True) as live:
        worker, traffic = live.workers[0], live.traffic
        traffic.burst(job.partitions)
        live.wait(job.partitions, "a result of every partition", LIVE_S)
        live_s = time.monotonic() - worker.started_s
        live.steady(2.0)
        before = worker.usage()
        live.steady(IDLE_S)
        after = worker.usage()
        some = _active(live, job, ACTIVE)
        every = _active(live, job, job.partitions)
        live.drain()
    return {
        "live_s": live_s,
        "threads": float(after.threads),
        "descriptors": float(after.descriptors),
        "rss_mb": after.rss_mb,
        "idle_percent": (after.cpu_s - before.cpu_s) / IDLE_S * 100,
        "p50_ms": percentile(some, 0.5),
        "p99_ms": percentile(some, 0.99),
        "p50_all_ms": percentile(every, 0.5),
        "verified": float(live.traffic.outputs),
    }


def _active(live: _Live, job: Job, count: int) -> list[float]:
    """The latencies with this many partitions active, at 10 records/s each: 10 at once if there are more than 100."""
    step = job.partitions // count
    numbers = range(0, job.partitions, step)
    live.traffic.watch({partition_of(key_of(number, job.keys), job.partitions) for number in numbers})
    live.traffic.flow(count * ACTIVE_RATE, step, ACTIVE_RATE if count > ACTIVE else 1)
    live.steady(ACTIVE_S / 3)
    began_s = time.monotonic()
    live.steady(ACTIVE_S)
    ended_s = time.monotonic()
    live.drain()
    live.traffic.watch()
    return live.traffic.arrivals().latencies_ms(began_s, ended_s)


def memory(bench: Bench, job: Job, name: str, turn_name: str) -> dict[str, float]:
    """Resident memory under a steady load, and how it grows in the last two thirds of the time."""
    with _running(bench, job, name, turn_name) as live:
        live.traffic.flow(MEMORY_RATE)
        live.wait(1, "the first result", START_S)
        samples: list[tuple[float, float]] = []
        began_s = time.monotonic()
        while time.monotonic() - began_s < MEMORY_S:
            live.steady(MEMORY_STEP_S)
            samples.append((time.monotonic() - began_s, live.workers[0].usage().rss_mb))
        live.drain()
    late = [sample for sample in samples if sample[0] >= MEMORY_S / 3]
    return {
        "mb_per_minute": slope(late) * 60,
        "rss_mb": samples[-1][1],
        "verified": float(live.traffic.outputs),
    }


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of the line of least squares."""
    if len(points) < 2:
        raise BenchmarkError("one point has no slope")
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    square = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / square

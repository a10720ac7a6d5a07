"""Records per second of one job: from the moment at which a system has processed a tenth to its last output.

    1 The input is in the topic. A system starts on an empty state.
    2 Its program notes when it has processed the first tenth. By then, it has started, and a JVM has compiled most.
    3 The clock stops when the last result is committed: when the end of the committed output moves for the last time.
    4 All results are read and verified. A system that is not done after WINDOW_S is stopped; what it has committed
      until then is verified and counted.

Nothing reads the output while the clock runs, since on a small machine a reader takes as much time as a system.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.peers.bench import Bench, Job, Turn
from benchmarks.peers.outputs import JOBS_OF_ROWS, OutputReader, Tally
from benchmarks.peers.processes import PeerProcess, Usage
from benchmarks.peers.systems import SYSTEMS

__all__ = ["measure"]

WARM_PART = 10
SLOW_WARM = 2_000
WINDOW_S = 60.0
SLOW_WINDOW_S = 20.0
START_S = 120.0
QUIET_S = 1.5
_POLL_S = 0.02
WITHOUT_INPUT = frozenset({"produce", "ours-producer"})


@dataclass(slots=True)
class _Seen:
    """How far the output was when it moved last, and what the process had used by then."""

    end: int = 0
    at_s: float = 0.0
    usage: Usage | None = None
    marked_s: float = 0.0
    marked_at: int = 0
    marked_usage: Usage | None = None


def measure(bench: Bench, job: Job, name: str, turn_name: str) -> dict[str, float]:
    """One turn. Raises BenchmarkError when the system has failed, or has put out something else."""
    system = SYSTEMS[name]
    without_input = system.job in WITHOUT_INPUT
    source = "" if without_input else bench.source(job, job.records)
    mark_at = SLOW_WARM if system.slow else job.records // WARM_PART
    with Turn(bench, job, turn_name, system, source, mark_at) as turn:
        process = turn.start()
        if turn.kind == "consume":
            return _consumed(turn, process)
        tally = Tally(turn.kind, job.records, job.keys)
        reader = OutputReader(bench.topics.servers, turn.target, job.partitions, tally)
        seen, peak_mb = _watch(turn, process, reader, tally)
        if not tally.complete:
            reader.read()
        return _figures(seen, job, tally, peak_mb)


def _figures(seen: _Seen, job: Job, tally: Tally, peak_mb: float) -> dict[str, float]:
    done = job.records if tally.complete else tally.outputs
    records = done - seen.marked_at
    if seen.usage is None or seen.marked_usage is None or records <= 0 or seen.at_s <= seen.marked_s:
        raise BenchmarkError(f"put out {done} of {job.records} records")
    return {
        "records_per_s": records / (seen.at_s - seen.marked_s),
        "cpu_us": (seen.usage.cpu_s - seen.marked_usage.cpu_s) / records * 1e6,
        "peak_mb": peak_mb,
        "verified": float(tally.outputs),
    }


def _watch(turn: Turn, process: PeerProcess, reader: OutputReader, tally: Tally) -> tuple[_Seen, float]:
    """Wait until all results are committed, or the window is over."""
    job, seen, began_s = turn.job, _Seen(), time.monotonic()
    window_s = SLOW_WINDOW_S if turn.system.slow else WINDOW_S
    gate = 1 if turn.kind in JOBS_OF_ROWS else job.records
    finished, peak_mb = False, 0.0
    while True:
        time.sleep(_POLL_S)
        now_s = time.monotonic()
        if not finished:
            finished = process.ended and turn.system.job != ""
            if not finished:
                process.require_running()
                usage, peak_mb = process.usage(), max(peak_mb, process.peak_rss_mb())
        if not seen.marked_s and turn.mark.exists():
            seen.marked_s, seen.marked_at = _read_mark(turn.mark, turn)
            seen.marked_usage = usage
        end = turn.bench.topics.committed_end(turn.target, job.partitions)
        if end != seen.end:
            seen.end, seen.at_s, seen.usage = end, now_s, usage
        if not seen.marked_s:
            if now_s - began_s > START_S:
                raise BenchmarkError(f"nothing in {START_S:.0f} s: {process.log_end()}")
        elif now_s - seen.marked_s > window_s:
            process.kill()
            return seen, peak_mb
        if end >= gate and now_s - seen.at_s > QUIET_S:
            reader.read()
            if tally.complete:
                return seen, peak_mb


def _consumed(turn: Turn, process: PeerProcess) -> dict[str, float]:
    """The job without outputs: the program itself writes when it has got the last record."""
    ended, deadline_s = turn.mark.with_suffix(".end"), time.monotonic() + START_S
    while not ended.exists():
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"not done in {START_S:.0f} s: {process.log_end()}")
        time.sleep(_POLL_S)
    began_s, began_at = _read_mark(turn.mark, turn)
    took_s = float(ended.read_text(encoding="ascii")) - began_s
    return {"records_per_s": (turn.job.records - began_at) / took_s}


def _read_mark(file: Path, turn: Turn) -> tuple[float, int]:
    """When the mark was passed, and the number of records that were processed by then.

    The first process passes it. The others are as far, because they begin together and have equal shares.
    """
    at_s, over = file.read_text(encoding="ascii").split()
    return float(at_s), (turn.plan("").mark_at + int(over)) * turn.system.processes

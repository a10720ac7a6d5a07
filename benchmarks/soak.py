"""Memory, descriptors, disk and journal of a worker under a steady load: `make soak HOURS=1`.

3,000 records/s go through 24 partitions and two stages, with dedup ids that live for 120 s, 200 thousand keys and a
checkpoint of each task every 20 s. Every 15 s, the worker reports where its memory is (`soak_worker.measured`), and
this process reads the rest from outside. The table and the JSON file have the same samples.

The soak fails if resident memory grows by more than `MOST_MB_PER_MINUTE` after the first ten minutes, when every key is
in the cache and ids expire as fast as they come. The growth is the median of the slopes between pairs of samples (Theil
and Sen), so that the peak of a compaction does not change it. Both samples of a pair lie in one steady stretch: other
work on the machine may stop the worker for a moment, and the backlog then takes memory that glibc does not give back.
If fewer than half of the samples are steady, there is no verdict, and the soak fails as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, combinations, pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import BenchmarkError
from benchmarks.soak_worker import EVENTS, NAME, SUMS
from pipeline import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from pipeline.testing import LocalKafka

__all__ = ["growth_per_minute", "main", "run", "steady_stretches"]

RATE = 3_000
KEYS = 200_000
PARTITIONS = 24
SAMPLE_S = 15
RESULT = Path("build/soak.json")
WARM_S = 600
MOST_MB_PER_MINUTE = 1.0
_LEAST_SAMPLES = 8
_STEADY = 0.2  # how far the records processed may differ from those sent
_STEADY_SHARE = 0.5
_STOP_S = 60.0
# Old segments of the two topics are deleted, so that the broker's disk does not grow with the duration.
_RETENTION = {"retention.bytes": "16000000", "segment.bytes": "8000000", "max.message.bytes": "1000000"}

Sample = dict[str, float]


def steady_stretches(samples: Sequence[Sample], rate: int) -> list[list[Sample]]:
    """The stretches of samples in which both stages processed about as much as was sent since the sample before."""
    stretches: list[list[Sample]] = [list(samples[:1])]
    for before, sample in pairwise(samples):
        sent = 2 * rate * (sample["second"] - before["second"])
        done = sample["records"] - before["records"]
        if sent * (1 - _STEADY) <= done <= sent * (1 + _STEADY):
            stretches[-1].append(sample)
        else:
            stretches.append([])
    return [stretch for stretch in stretches if len(stretch) >= _LEAST_SAMPLES]


def growth_per_minute(stretches: Iterable[Sequence[Sample]], name: str) -> float:
    """The median of the slopes between all pairs of samples of one stretch."""
    pairs = chain.from_iterable(combinations(stretch, 2) for stretch in stretches)
    return statistics.median(60 * (b[name] - a[name]) / (b["second"] - a["second"]) for a, b in pairs)


def run(hours: float, rate: int, keys: int, result: Path) -> int:
    """Watch, print and write; 1 if memory grows too fast, or if the worker does not keep up."""
    console = Console(highlight=False, width=190)
    seconds = hours * 3600
    warm_s = min(WARM_S, seconds / 2)
    if seconds - warm_s < _LEAST_SAMPLES * SAMPLE_S:
        raise BenchmarkError(f"--hours must be at least {2 * _LEAST_SAMPLES * SAMPLE_S / 3600:.2f}")
    samples: list[Sample] = []
    console.print(
        f"soak: {rate:,} records/s, {keys:,} keys, {PARTITIONS} partitions, two stages, {hours:g} h; "
        f"fails above {MOST_MB_PER_MINUTE:g} MB a minute after {warm_s / 60:.0f} min"
    )
    try:
        for sample in _samples(seconds, rate, keys):
            samples.append(sample)
            if (len(samples) - 1) % 20 == 0:
                console.print(_HEADER)
            console.print(_line(sample))
            _write(result, rate, keys, samples, None)
    except KeyboardInterrupt:
        console.print("soak: interrupted")
    late = [sample for sample in samples if sample["second"] >= warm_s]
    if len(late) < _LEAST_SAMPLES:
        raise BenchmarkError("too few samples for a verdict")
    stretches = steady_stretches(late, rate)
    steady = sum(map(len, stretches)) / len(late)
    grown = {name: growth_per_minute(stretches, name) for name in late[0]} if stretches else {}
    console.print(_summary(late, grown))
    console.print(f"soak: {steady:.0%} of the samples are steady, in {len(stretches)} stretches")
    problems = _problems(late[-1], grown, steady)
    _write(result, rate, keys, samples, {"growth_per_minute": grown, "problems": problems})
    console.print(f"soak: {'; '.join(problems)}" if problems else "soak: steady", soft_wrap=True)
    return int(bool(problems))


def _problems(last: Sample, grown: Sample, steady: float) -> list[str]:
    problems = []
    mb = grown.get("resident_bytes", 0.0) / 1e6
    if mb > MOST_MB_PER_MINUTE:
        problems.append(f"resident memory grows by {mb:.2f} MB a minute, above {MOST_MB_PER_MINUTE:g}")
    if last["failed"]:
        problems.append(f"{last['failed']:.0f} tasks have failed")
    if steady < _STEADY_SHARE:
        problems.append("no verdict: the worker did not keep up with the load, or the machine was too busy")
    return problems


def _samples(seconds: float, rate: int, keys: int) -> Iterator[Sample]:
    """What is measured, every SAMPLE_S."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-soak-")))
        (place / "checkpoints").mkdir()
        servers = stack.enter_context(LocalKafka(place / "kafka")).bootstrap_servers
        cluster = stack.enter_context(closing(KafkaCluster(KafkaSettings(servers))))
        cluster.create([TopicSpec(topic, PARTITIONS, config=_RETENTION) for topic in (EVENTS, SUMS)])
        reader = stack.enter_context(closing(KafkaJournalReader(KafkaSettings(servers))))
        load = stack.enter_context(_process("load", servers, str(rate), str(keys)))
        worker = stack.enter_context(_process("work", servers, str(place), str(SAMPLE_S)))
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < seconds:
            line = worker.stdout.readline() if worker.stdout is not None else ""
            if not line or load.poll() is not None:
                raise BenchmarkError("the worker or the load has ended; its error is above")
            yield {
                "second": round(passed_s),
                **_outside(worker.pid, place),
                "journal_records": _journal_records(reader),
                **json.loads(line),
            }


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with this block, and also if this process is killed: its standard input then ends."""
    command = [sys.executable, "-m", "benchmarks.soak_worker", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _outside(pid: int, place: Path) -> Sample:
    """What the system says about a process and its directories."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "resident_bytes": int(status["VmRSS"].split()[0]) * 1024,
        "native_threads": int(status["Threads"]),
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "state_bytes": _size(place / "state"),
        "checkpoint_bytes": _size(place / "checkpoints"),
    }


def _size(directory: Path) -> int:
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except FileNotFoundError:
                continue  # deleted meanwhile
    return total


def _journal_records(reader: KafkaJournalReader) -> int:
    """The records between start and end of all journals; 0 before the worker has created them."""
    total = 0
    for group in ("count", "check"):
        for partition in range(PARTITIONS):
            try:
                bounds = reader.bounds(TopicPartition(f"{NAME}.{group}.journal", partition))
            except Exception:  # noqa: BLE001 - the topic does not exist yet, or its leader has just changed
                return 0
            total += bounds.end - bounds.start
    return total


_COLUMNS = (
    ("second", "time, s", 1),
    ("records", "records", 1),
    ("commits", "commits", 1),
    ("resident_bytes", "resident MB", 1e6),
    ("native_bytes", "native MB", 1e6),
    ("native_free_bytes", "free MB", 1e6),
    ("python_blocks", "blocks", 1),
    ("memtable_bytes", "memtables", 1e6),
    ("block_cache_bytes", "cache MB", 1e6),
    ("table_reader_bytes", "readers", 1e6),
    ("descriptors", "files", 1),
    ("native_threads", "threads", 1),
    ("state_bytes", "state MB", 1e6),
    ("checkpoint_bytes", "store MB", 1e6),
    ("journal_records", "journal", 1),
)
_HEADER = " ".join(f"{title:>11}" for _, title, _ in _COLUMNS)


def _line(sample: Sample) -> str:
    cells = (
        f"{sample.get(name, 0) / unit:,.1f}" if unit > 1 else f"{sample.get(name, 0):,.0f}"
        for name, _, unit in _COLUMNS
    )
    return " ".join(f"{cell:>11}" for cell in cells)


def _summary(late: Sequence[Sample], grown: Sample) -> Table:
    table = Table("after the first minutes", "first", "last", "highest", "growth a minute", box=None)
    for name, title, unit in _COLUMNS[1:]:
        values = [sample.get(name, 0) / unit for sample in late]
        shown = (values[0], values[-1], max(values), grown.get(name, 0) / unit)
        table.add_row(title, *(f"{value:,.2f}" if unit > 1 else f"{value:,.0f}" for value in shown))
    return table


def _write(result: Path, rate: int, keys: int, samples: list[Sample], verdict: object) -> None:
    """Write all that is known so far, so that an interrupted soak leaves its samples."""
    result.parent.mkdir(parents=True, exist_ok=True)
    document = {"rate": rate, "keys": keys, "partitions": PARTITIONS, "samples": samples, "verdict": verdict}
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    partial.replace(result)


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0 if memory is steady."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--rate", type=int, default=RATE, help=f"records/s ({RATE:,})")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"different keys ({KEYS:,})")
    parser.add_argument("--result", type=Path, default=RESULT, help=f"the JSON file to write ({RESULT})")
    chosen = parser.parse_args(arguments)
    return run(chosen.hours, chosen.rate, chosen.keys, chosen.result)


if __name__ == "__main__":
    sys.exit(main())

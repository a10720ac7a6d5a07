"""Records what an earlier build leaves behind, as a fixture that later builds must continue.

    python -m tools.record_fixture

It takes the earlier build from the repository's history (`tests.support.compat.builds.OLD_COMMIT`), starts that build's
local Kafka, and runs that build's workers and commands with the programs of `tests.support.compat`. It takes about two
minutes, needs the whole history of the repository, and downloads Kafka 4.3.1 (45 MB) if it is not installed. The result
is `tests/compat/fixture/recorded.tar.xz`; the README beside it says what is in it.

Three apps, `local`, `stored` and `journal`, go through these steps:

    1. load rows; a worker of schema 1 handles them and refuses some; kill or stop it; keep the state of `local`
    2. reset one task of the group `counting` of `local` and `journal`
    3. a repaired worker of schema 2 upgrades the table; load slowly, until the journals of `stored` are truncated; in
       `local`, a second worker takes tasks over and gives them back
    4. replay five dead letters, and wait until they are handled
    5. run `stored` without its store, so that its journals are ahead of the last checkpoints; kill a load half-way;
       kill the workers
    6. replay four more dead letters, which no worker handles

After them, `ledger` writes rows to PostgreSQL until its worker is killed, `retired` is migrated to `successor` and
retired, and a service commits batches and is killed with an open transaction.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from pipeline.broker.ports import choose_ports
from tests.support.compat.builds import OLD_COMMIT, Build, old_build
from tests.support.compat.fold import Stretch, expected_tallies, firsts
from tests.support.compat.program import create_tables
from tests.support.compat.recorded import APPS, FIXTURE, PROGRAM
from tests.support.compat.service import TOPIC
from tests.support.compat.topics import INPUT_COLUMNS, Topics, inputs_of, write_rows
from tests.support.sinks.server import PostgresUnderTest

FIRST, SECOND, HALF = (0, 400), (400, 1000), (1000, 1400)  # rows of the loads
REFUSED, REPLAYED = 20, 5
PARTITIONS = 2
RESET = (
    "local",
    "journal",
)  # a reset that is truncated away is more than the checker of committed records can follow
RESET_FROM = 60
MIGRATION = ("retired", "successor", "--topic", "retired-orders=successor-orders")
WAIT_S = 90.0
_PAUSE_S = 0.2
_NONE: Mapping[str, str] = {}


class Recording:
    """One recording. What is kept of it is in `kept`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.kept = scratch / "fixture"
        for name in ("states", "databases", "inputs", "checkpoints"):
            (self.kept / name).mkdir(parents=True)
        self.build: Build = old_build(scratch)
        self.port = choose_ports(1)[0]
        self.servers = f"127.0.0.1:{self.port}"
        self.stretches: dict[str, list[Stretch]] = {app: [] for app in APPS}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Start Kafka, record, stop Kafka."""
        kafka = ("--data-dir", str(self.kept / "kafka"))
        self.build.pipeline("broker", "start", *kafka, "--port", str(self.port))
        try:
            with closing(Topics(self.servers)) as self.topics:
                self._create()
                for step in (
                    self._step_1,
                    self._step_2,
                    self._step_3,
                    self._step_4,
                    self._step_5,
                    self._step_6,
                ):
                    _say(step.__name__.removeprefix("_").replace("_", " "))
                    step()
                _say("write to PostgreSQL, retire, and serve")
                self._write_to_postgres()
                self._retire()
                self._serve()
        finally:
            for child in self._children:
                _kill(child)
            self.build.pipeline("broker", "stop", *kafka)
        facts = {"commit": OLD_COMMIT, "stretches": self.stretches}
        (self.kept / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    def _create(self) -> None:
        for app in (*APPS, "ledger", "retired", "successor"):
            names = [f"{app}-{topic}" for topic in ("orders", "sums", "counts", "repeats")]
            self.topics.create(PARTITIONS + (app == "successor"), *names)
            with closing(sqlite3.connect(self.kept / "databases" / f"{app}.sqlite")) as database, database:
                create_tables(database.execute)
        self.topics.create(1, TOPIC)

    def _step_1(self) -> None:
        for app in APPS:
            self._ended(self._load(app, "first", FIRST))
            self.workers[app] = self._worker(app, "a", 1)
        for app in APPS:
            self._wait_for_sums(app, missing=REFUSED)
            self._wait_for_tallies(app, schema=1)
        _kill(self.workers["local"])
        shutil.copytree(self.scratch / "states" / "local" / "a", self.kept / "states" / "local")
        for app in ("stored", "journal"):
            self._stop(self.workers[app])

    def _step_2(self) -> None:
        for app in RESET:
            reset = ("--group", "counting", "--partition", "1", "--from", str(RESET_FROM), "--yes")
            self._pipeline("reset", f"{PROGRAM}:{app}", *reset, schema=1)

    def _step_3(self) -> None:
        for app in APPS:
            store = {
                "PIPELINE_CHECKPOINT_STORE": f"file://{self.kept / 'checkpoints'}",
                "PIPELINE_CHECKPOINT_INTERVAL_S": "1",
            }
            self.workers[app] = self._worker(app, "a", 2, store if app == "stored" else _NONE)
        second = self._worker("local", "b", 2)
        for app in APPS:
            self._wait_for_tallies(app, schema=2)
        slowly = ("--rate", "60", "--batch", "10")
        loads = [self._load(app, "second", SECOND, *slowly) for app in APPS]
        journals = [f"stored.{group}.journal" for group in ("main", "counting")]
        self._wait(lambda: all(min(self.topics.begins(journal)) > 0 for journal in journals), "truncation")
        self._stop(second)
        self._ended(*loads)

    def _step_4(self) -> None:
        for app in APPS:
            self._pipeline("deadletters", "replay", f"{PROGRAM}:{app}", "--max", str(REPLAYED))
            self._wait_for_sums(app, missing=REFUSED - REPLAYED)

    def _step_5(self) -> None:
        _kill(self.workers["stored"])
        self.workers["stored"] = self._worker("stored", "a", 2)
        for app in APPS:
            handled = self.topics.count(f"{app}-sums")
            load = self._load(app, "half", HALF, "--rate", "100", "--batch", "20")
            loaded = SECOND[1] + 60
            self._wait(lambda app=app, n=loaded: self.topics.count(f"{app}-orders") >= n, f"{app}: load")  # type: ignore[misc]
            _kill(load)
            self._wait(lambda app=app, n=handled: self.topics.count(f"{app}-sums") > n, f"{app}: sums")  # type: ignore[misc]
            _kill(self.workers[app])

    def _step_6(self) -> None:
        for app in APPS:
            self._pipeline("deadletters", "replay", f"{PROGRAM}:{app}", "--max", "4")

    def _write_to_postgres(self) -> None:
        server = PostgresUnderTest()
        try:
            dsn = server.create_database()
            create_tables(partial(server.sql, dsn))
            worker = self._worker("ledger", "a", 3, {"COMPAT_POSTGRES": dsn})
            self._ended(self._load("ledger", "first", FIRST))
            self._wait_for_sums("ledger", missing=0)
            self._wait(lambda: self._rows(server, dsn) == self.topics.count("ledger-sums"), "rows")
            load = self._load("ledger", "half", SECOND, "--rate", "100", "--batch", "20")
            self._wait(lambda: self._rows(server, dsn) > FIRST[1], "more rows")
            _kill(worker)
            _kill(load)
            (self.kept / "databases" / "ledger.sql").write_text(server.dump(dsn), encoding="utf-8")
        finally:
            server.close()

    @staticmethod
    def _rows(server: PostgresUnderTest, dsn: str) -> int:
        ((count,),) = server.sql(dsn, "SELECT count(*) FROM history")
        return int(str(count))

    def _retire(self) -> None:
        self._ended(self._load("retired", "first", (0, 200)))
        for app in ("retired", "successor"):
            worker = self._worker(app, "a", 3)
            self._wait_for_sums(app, missing=0)
            due = sum(
                len(firsts(partition)) for partition in inputs_of(self.topics.committed(f"{app}-orders"))
            )
            self._wait(lambda app=app, n=due: self.topics.count(f"{app}-counts") == n, f"{app}: counts")  # type: ignore[misc]
            self._stop(worker)
            if app == "retired":
                shutil.copytree(self.scratch / "states" / "retired" / "a", self.kept / "states" / "retired")
                self._pipeline("migrate", "run", *MIGRATION)
        self._pipeline("migrate", "switch", *MIGRATION, "--retire")

    def _serve(self) -> None:
        for begin in (0, 10, 20):
            self._ended(self._service(str(begin), "10"))
        committed = self.topics.written(TOPIC)
        killed = self._service("1000", "700", "-")  # more than the producer keeps to itself
        self._wait(lambda: self.topics.written(TOPIC) >= committed + 500, "an open transaction")
        _kill(killed)

    def _wait_for_sums(self, app: str, *, missing: int) -> None:
        """Until the group `main` has handled all rows but those that it has refused."""
        inputs = inputs_of(self.topics.committed(f"{app}-orders"))
        due = sum(len(firsts(partition)) for partition in inputs) - missing
        self._wait(lambda: self.topics.count(f"{app}-sums") == due, f"{app}: {due} sums")

    def _wait_for_tallies(self, app: str, *, schema: int) -> None:
        """Until the group `counting` has handled all rows; then it is known what it has read under the schema."""
        inputs = inputs_of(self.topics.committed(f"{app}-orders"))
        made = self.stretches[app]
        for number, partition in enumerate(inputs):
            end = partition[-1].offset + 1
            if schema == 2 and number == 1 and app in RESET:
                made.append(Stretch(number, schema, RESET_FROM, end, reset=True))
            else:
                begin = max((each.end for each in made if each.partition == number), default=0)
                made.append(Stretch(number, schema, begin, end))
        due = sum(map(len, expected_tallies(inputs, made).outputs.values()))
        self._wait(lambda: self.topics.count(f"{app}-counts") == due, f"{app}: {due} counts")

    def _pipeline(self, *arguments: str, schema: int = 2) -> None:
        self.build.pipeline(*arguments, variables=self._variables(schema))

    def _worker(
        self, app: str, worker: str, schema: int, variables: Mapping[str, str] = _NONE
    ) -> subprocess.Popen[bytes]:
        return self._start(
            "-m", "pipeline", "worker", f"{PROGRAM}:{app}", "--worker-id", worker,
            "--state-dir", str(self.scratch / "states" / app / worker), "--commit-interval-ms", "50",
            variables={**self._variables(schema), **variables},
        )  # fmt: skip

    def _load(self, app: str, name: str, rows: tuple[int, int], *more: str) -> subprocess.Popen[bytes]:
        path = write_rows(self.kept / "inputs" / f"{app}-{name}.csv", *rows)
        load = ("produce", f"{app}-orders", str(path), *INPUT_COLUMNS, "--name", f"{app}-{name}")
        return self._start("-m", "pipeline", *load, *more, variables=self._variables(2))

    def _service(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self._start("-m", "tests.support.compat.service", *arguments, variables=self._variables(2))

    def _start(self, *arguments: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        child = self.build.start(self.scratch / "log", *arguments, variables=variables)
        self._children.append(child)
        return child

    def _variables(self, schema: int) -> dict[str, str]:
        """The program of schema 1 is not repaired."""
        found = {
            "COMPAT_SCHEMA": str(schema),
            "COMPAT_DATABASES": str(self.kept / "databases"),
            "PIPELINE_KAFKA": self.servers,
        }
        return found if schema == 1 else {**found, "COMPAT_REPAIRED": "1"}

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        worker.send_signal(signal.SIGTERM)
        self._ended(worker)

    def _ended(self, *children: subprocess.Popen[bytes]) -> None:
        for child in children:
            if child.wait(WAIT_S) != 0:
                raise SystemExit(f"{child.args!r} ended with {child.returncode}:\n{self._log()}")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: not within {WAIT_S:.0f} s\n{self._log()}")
            time.sleep(_PAUSE_S)

    def _log(self) -> str:
        return "\n".join((self.scratch / "log").read_text(encoding="utf-8").splitlines()[-60:])


def pack(directory: Path, target: Path) -> None:
    """Everything but locks, and the texts that Kafka and RocksDB write for people."""
    left_out = {".lock", "LOCK", "LOG", "broker.log", "scratch"}

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if Path(member.name).name in left_out else member

    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:xz", preset=9) as archive:
        archive.add(directory, arcname=".", filter=kept)
    _say(f"{target}: {target.stat().st_size:,} bytes")


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a script


def main() -> None:
    """Record the fixture anew."""
    with tempfile.TemporaryDirectory(prefix="record-fixture-") as scratch:
        recording = Recording(Path(scratch))
        recording.run()
        pack(recording.kept, FIXTURE)


if __name__ == "__main__":
    main()

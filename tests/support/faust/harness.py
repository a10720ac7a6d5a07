"""Runs an application of `apps` under Faust, undisturbed, and under `pipeline worker`, with kills; reads the results.

Each run has its own topics: all their names, and the application's id, begin with a prefix.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from pipeline.broker.ports import choose_ports
from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from tests.support.faust.cases import (
    Case,
    Results,
    decoded,
    hashable,
    in_any_order,
    plain,
    rows_of_changelog,
)
from tests.support.faust.kafka import Input, Message, Reader, create_topics, send
from tests.support.waiting import wait_until

__all__ = ["FaustRun", "Run", "WorkerRun", "run_under_faust", "run_under_worker"]

ROOT = Path(__file__).parents[3]
STOP_S = 60.0
FAUST_STOP_S = 10.0
_PAUSE_S = 0.2
# 300 inputs outlast six kills, each of which takes seconds: a worker without inputs only takes its tasks.
_FEED_S = 0.15


class Run:
    """One run of one application: its topics and its processes."""

    def __init__(self, servers: str, prefix: str, directory: Path, case: Case) -> None:
        self.servers, self.prefix, self.case = servers, prefix, case
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "worker.log"
        self.port = choose_ports(1)[0]
        self._quiet = directory / "quiet"
        self._children: list[subprocess.Popen[bytes]] = []
        topics = {prefix + name: count for name, count in case.topics.items()}
        create_topics(servers, topics | self.changelogs())
        self._reader = Reader(servers, topics | self.changelogs())

    @property
    def id(self) -> str:
        """The application's id."""
        return self.prefix + self.case.id

    def changelogs(self) -> dict[str, int]:
        """The topics in which an engine keeps tables, if they must exist before it starts."""
        return {}

    def rows(self, table: str) -> dict[Any, Any]:
        """The rows of a table."""
        raise NotImplementedError

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        raise NotImplementedError

    def command(self, *arguments: str) -> None:
        """Run a command of the application."""
        raise NotImplementedError

    def messages(self) -> dict[str, list[Message]]:
        """All committed records, by topic without the prefix."""
        return {name.removeprefix(self.prefix): found for name, found in self._reader.read().items()}

    def results(self) -> Results:
        """Outputs and tables as they are now."""
        found = self.outputs()
        for table in (*self.case.tables, *self.case.set_tables):
            found.tables[table] = self.rows(table)
        return found

    def outputs(self) -> Results:
        """Outputs as they are now, without tables."""
        messages, found = self.messages(), Results()
        for topic in self.case.outputs:
            decode = self.case.decode.get(topic, msgspec.json.decode)
            for message in messages[topic]:
                key = None if message.key is None else message.key.decode()
                found.outputs[topic].append((key, decoded(message, decode)))
        return found

    def bytes_of_outputs(self) -> dict[str, Counter[tuple[bytes | None, bytes | None, object]]]:
        """Keys, values and headers as they are, of the outputs that depend on neither the clock nor repetitions."""
        messages = self.messages()
        return {
            topic: Counter((each.key, each.value, each.headers) for each in messages[topic])
            for topic in self.case.outputs
            if self.case.compared.get(topic, in_any_order) is in_any_order
        }

    def expected(self) -> Results:
        """The results by the oracle, from the records that are in the input topics now."""
        return self.case.expected(self.messages())

    def send(self, inputs: list[Input], pause: Callable[[], object] = lambda: None) -> None:
        """Send inputs, with a pause after each."""
        send(self.servers, self.prefix, inputs, pause)

    def wait_until_right(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until the results are those of the oracle. Fails with the first difference."""
        deadline = time.monotonic() + self.case.deadline_s
        while True:
            found, wanted = self.case.compare(self.results()), self.case.compare(self.expected())
            if found == wanted and self.case.least(self.messages()):
                return
            assert worker.poll() is None, f"ended with {worker.returncode}:\n{self.story()}"
            assert time.monotonic() < deadline, f"{difference(found, wanted)}\n{self.story()}"
            time.sleep(_PAUSE_S)

    def check(self) -> None:
        """Compare with the oracle, when nothing runs any more."""
        found, wanted = self.case.compare(self.results()), self.case.compare(self.expected())
        assert found == wanted, f"{difference(found, wanted)}\n{self.story()}"

    def check_pages(self) -> None:
        """Compare the pages of a running worker with the oracle."""
        if self.case.get is not None:
            for path, wanted in self.case.get(self.expected()).items():
                assert self.fetch(path) == wanted, path

    def fetch(self, path: str, body: Any = None) -> Any:
        """The JSON of a page. With a body, it is posted."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())

    def wait_for_page(self, worker: subprocess.Popen[bytes], path: str) -> None:
        """Wait until the worker serves the pages of the application. A worker that starts answers 503."""

        def answers() -> bool:
            assert worker.poll() is None, self.story()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
                    return True
            except urllib.error.HTTPError as error:
                error.close()  # it holds the connection
                return error.code != HTTPStatus.SERVICE_UNAVAILABLE
            except OSError:
                return False

        wait_until(answers, self.story)

    def quiet(self) -> None:
        """From now on, workers send nothing of their own."""
        self._quiet.touch()

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM and wait for the end."""
        worker.send_signal(signal.SIGTERM)
        worker.wait(STOP_S)

    def story(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-6_000:] if self.log.exists() else ""

    def close(self) -> None:
        """End all processes."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        self._reader.close()

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python program in the environment of this run."""
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._children.append(child)
        return child

    def environment(self) -> dict[str, str]:
        """The environment of a worker."""
        return {
            **os.environ,
            "FAUST_PREFIX": self.prefix,
            "BROKER_URL": f"kafka://{self.servers}",
            "FAUST_QUIET": str(self._quiet),
        }


class FaustRun(Run):
    """A run under Faust's own worker."""

    def __init__(
        self,
        servers: str,
        prefix: str,
        directory: Path,
        case: Case,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = dict(settings or {})
        super().__init__(servers, prefix, directory, case)

    def changelogs(self) -> dict[str, int]:
        names = (*self.case.tables, *self.case.set_tables)
        return {f"{self.id}-{table}-changelog": self.case.partitions for table in names}

    def rows(self, table: str) -> dict[Any, Any]:
        messages = self.messages()[f"{self.case.id}-{table}-changelog"]
        decode = self.case.decode.get(table, msgspec.json.decode)
        return rows_of_changelog(messages, sets=table in self.case.set_tables, decode=decode)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        arguments = (
            "-m",
            "faust",
            "-A",
            f"{self.case.module}:app",
            "--datadir",
            str(self.directory / "data"),
        )
        web = ("--web-port", str(self.port), "--web-host", "127.0.0.1")
        return self.spawn(*arguments, "worker", "-l", "info", *web, *options)

    def command(self, *arguments: str) -> None:
        done = self.spawn("-m", "faust", "-A", f"{self.case.module}:app", *arguments)
        assert done.wait(STOP_S) == 0, self.story()

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM, and SIGKILL to a worker that does not end: Faust's shutdown sometimes hangs."""
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(FAUST_STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait(STOP_S)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "TOPIC_REPLICATION_FACTOR": "1", **self._settings}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first topic or table that differs, and how."""
    for name, want in wanted.items():
        have = found[name]
        if have != want:
            if isinstance(have, dict) and isinstance(want, dict):
                keys = [key for key in {*have, *want} if have.get(key) != want.get(key)][:3]
                return "\n".join(f"{name}, {key!r}: {have.get(key)!r}, not {want.get(key)!r}" for key in keys)
            return f"{name}: {have!r}, not {want!r}"
    return "fewer records in the inputs than the case demands"


class WorkerRun(Run):
    """A run under `pipeline worker`, with kills."""

    def __init__(self, servers: str, prefix: str, directory: Path, case: Case) -> None:
        self._state_dir = directory / "state"
        super().__init__(servers, prefix, directory, case)
        self._cluster = KafkaCluster(KafkaSettings(servers))
        self._ends = KafkaJournalReader(KafkaSettings(servers))
        self._journal = f"{self.id}.main.journal"

    @property
    def app(self) -> str:
        """The application, as commands name it."""
        return f"{self.case.module}:app"

    def rows(self, table: str) -> dict[Any, Any]:
        found = subprocess.run(
            [
                sys.executable,
                "-m",
                "pipeline",
                "table",
                "show",
                table,
                "--app",
                self.app,
                "--json",
                *self._place(),
            ],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_S,
        )
        if "the state directory" in found.stderr:
            return {}  # no worker has come so far yet
        assert found.returncode == 0, found.stderr
        rows = [msgspec.json.decode(line) for line in found.stdout.splitlines()]
        found_rows = {hashable(plain(row["key"])): plain(row["value"]) for row in rows}
        return (
            {key: sorted(row) for key, row in found_rows.items()}
            if table in self.case.set_tables
            else found_rows
        )

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        http = ("--http-port", str(self.port))
        arguments = (
            "-m",
            "pipeline",
            "worker",
            self.app,
            "--worker-id",
            "killed",
            "--commit-interval-ms",
            "20",
        )
        return self.spawn(*arguments, *self._place(), *http, *options)

    def _place(self) -> tuple[str, ...]:
        return ("--kafka", self.servers, "--state-dir", str(self._state_dir))

    def command(self, *arguments: str) -> None:
        done = self.spawn("-m", "pipeline", "faust", "command", self.app, *arguments)
        assert done.wait(STOP_S) == 0, self.story()

    def commits(self) -> int:
        """How far the journal is: it grows with each commit. 0 before the first start has created it."""
        found = self._cluster.describe([self._journal]).get(self._journal)
        places = [TopicPartition(self._journal, number) for number in range(found.partitions if found else 0)]
        return sum(self._ends.stable_ends(places).values())

    def wait_for_commits(self, count: int, feeder: threading.Thread) -> None:
        """Wait until the journal has grown so far, or no more inputs come."""
        end = self.commits() + count
        wait_until(lambda: self.commits() >= end or not (self.case.sends or feeder.is_alive()), self.story)

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Send SIGKILL."""
        assert worker.poll() is None, self.story()
        worker.kill()
        worker.wait()

    def close(self) -> None:
        super().close()
        self._cluster.close()
        self._ends.close()


def run_under_worker(run: WorkerRun, draw: random.Random, kills: int) -> None:
    """Run an application under workers that are killed while it works, and compare its results with the oracle."""
    killed = threading.Event()

    inputs = run.case.inputs(draw)
    # The last worker gets the rest at once.
    feeder = threading.Thread(target=run.send, args=(inputs, lambda: killed.wait(_FEED_S)))
    feeder.start()
    moments = random.Random(draw.random())
    try:
        worker = run.start()
        _use_pages_and_commands(run, worker)
        for _ in range(kills):
            # The first commits are those by which a worker takes its tasks.
            run.wait_for_commits(moments.randrange(1, 25), feeder)
            run.kill(worker)
            worker = run.start()
    finally:
        killed.set()
        feeder.join()
    _finish(run, worker)


def run_under_faust(run: FaustRun, draw: random.Random) -> None:
    """Run an application under Faust, undisturbed, and compare its results with the oracle."""
    run.send(run.case.inputs(draw))
    worker = run.start()
    _use_pages_and_commands(run, worker)
    _finish(run, worker)


def _use_pages_and_commands(run: Run, worker: subprocess.Popen[bytes]) -> None:
    for path, body in run.case.post.items():
        run.wait_for_page(worker, path)
        run.fetch(path, body)
    if run.case.command:
        run.command(*run.case.command)


def _finish(run: Run, worker: subprocess.Popen[bytes]) -> None:
    """Wait for the results, stop the worker, and compare once more, since an output may be there twice."""
    if run.case.sends:
        wait_until(lambda: run.case.least(run.messages()), run.story, run.case.deadline_s)
        # The same worker continues: one of Faust that is stopped in the middle of an event handles it again.
        run.quiet()
    run.wait_until_right(worker)
    run.check_pages()
    run.stop(worker)
    run.check()

"""The data of the earlier build on a Kafka of this build: `Recorded`, unpacked by `unpack`."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from tests.support.checker.entries import Chunks, Entry
from tests.support.checker.log import Record
from tests.support.compat.builds import Build, new_build
from tests.support.compat.fold import Stretch
from tests.support.compat.topics import INPUT_COLUMNS, Input, Topics, inputs_of, write_rows
from tests.support.waiting import wait_until

__all__ = ["APPS", "FIXTURE", "PROGRAM", "Recorded", "sums_of", "unpack"]

FIXTURE = Path(__file__).parents[2] / "compat" / "fixture" / "recorded.tar.xz"
PROGRAM = "tests.support.compat.program"
APPS = ("local", "stored", "journal")
WAIT_S = 150.0  # several workers, loads and replays start at once
_NONE: Mapping[str, str] = {}


def unpack(directory: Path) -> None:
    """Unpack the fixture into `directory`."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(directory, filter="data")


class Recorded:
    """The unpacked fixture, whose Kafka is running at `servers`, and this build's processes on it."""

    def __init__(self, directory: Path, servers: str) -> None:
        self.directory = directory
        self.servers = servers
        self.build: Build = new_build(directory)
        self.topics = Topics(servers)
        self.log = directory / "log"
        self._children: list[subprocess.Popen[bytes]] = []
        facts = msgspec.json.decode((directory / "facts.json").read_bytes())
        self.recorded_stretches = {
            app: [Stretch(*each) for each in stretches] for app, stretches in facts["stretches"].items()
        }

    def pipeline(self, *arguments: str, schema: int = 3, code: int = 0) -> str:
        """Run `pipeline ...` to its end."""
        return self.build.pipeline(*arguments, code=code, variables=self._variables(schema))

    def documents(self, *arguments: str, schema: int = 3, code: int = 0) -> list[Any]:
        """The output of `pipeline ... --json`, line by line."""
        said = self.pipeline(*arguments, "--json", schema=schema, code=code)
        return [json.loads(line) for line in said.splitlines() if line.startswith(("{", "["))]

    def table(self, app: str, table: str, state_dir: Path, schema: int = 3) -> dict[Any, Any]:
        """The rows of a table, by key, from the states in a directory."""
        found = self.documents(
            "table", "show", table, "--app", f"{PROGRAM}:{app}", "--state-dir", str(state_dir), schema=schema
        )
        return {tuple(key) if isinstance(key := row["key"], list) else key: row["value"] for row in found}

    def worker(self, app: str, state_dir: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start the worker `a` of this build, with the last schema and the repaired handler."""
        return self.start(
            "-m", "pipeline", "worker", f"{PROGRAM}:{app}", "--worker-id", "a", "--state-dir", str(state_dir),
            "--commit-interval-ms", "50", variables=variables,
        )  # fmt: skip

    def load(self, app: str, name: str) -> subprocess.Popen[bytes]:
        """Start a load of one of the recorded files."""
        path = str(self.directory / "inputs" / f"{app}-{name}.csv")
        load = ("produce", f"{app}-orders", path, *INPUT_COLUMNS, "--name", f"{app}-{name}")
        return self.start("-m", "pipeline", *load)

    def add_rows(self, app: str, begin: int, end: int) -> None:
        """Load rows that were not recorded."""
        write_rows(self.directory / "inputs" / f"{app}-{begin}.csv", begin, end)
        self.ended(self.load(app, str(begin)))

    def start(self, *arguments: str, variables: Mapping[str, str] = _NONE) -> subprocess.Popen[bytes]:
        """Start `python ...` with this build in the background."""
        child = self.build.start(self.log, *arguments, variables={**self._variables(3), **variables})
        self._children.append(child)
        return child

    def ended(self, *children: subprocess.Popen[bytes]) -> None:
        """Wait until processes have ended with exit code 0."""
        for child in children:
            assert child.wait(WAIT_S) == 0, self.story()

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition. Fails with the logs of the processes, at once if one of them reports an error."""
        wait_until(lambda: condition() or self._errors(), self.story, WAIT_S)
        assert not self._errors(), self.story()

    def inputs(self, app: str) -> list[list[Input]]:
        """The rows in each partition of the app's input."""
        return inputs_of(self.topics.committed(f"{app}-orders"))

    def stretches(self, app: str, inputs: list[list[Input]]) -> list[Stretch]:
        """The offsets that the group `counting` of the app has read, after this build has read all."""
        made = list(self.recorded_stretches.get(app, ()))
        for number, partition in enumerate(inputs):
            begin = max((each.end for each in made if each.partition == number), default=0)
            made.append(Stretch(number, 3, begin, partition[-1].offset + 1))
        return made

    def entries(self, app: str, group: str) -> list[Entry]:
        """The entries of a group's journal, read by an independent decoder."""
        partitions = self.topics.committed(f"{app}.{group}.journal")
        return [entry for records in partitions for entry in Chunks().entries(records)]

    def rows(self, app: str, table: str) -> list[tuple[str, int, int]]:
        """The rows of the app's sinks in a table, in the order of the database."""
        with closing(sqlite3.connect(self.directory / "databases" / f"{app}.sqlite")) as database:
            return database.execute(f"SELECT account, count, total FROM {table} ORDER BY rowid").fetchall()  # noqa: S608

    def story(self) -> str:
        """The end of the log of all processes."""
        return "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-80:])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log, by their event."""
        return [event for event in self._logged() if event["event"] == name]

    def close(self) -> None:
        """End all processes."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        self.topics.close()

    def _errors(self) -> list[dict[str, Any]]:
        return [event for event in self._logged() if event["level"] == "error"]

    def _logged(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def _variables(self, schema: int) -> dict[str, str]:
        return {
            "COMPAT_SCHEMA": str(schema),
            "COMPAT_REPAIRED": "1",
            "COMPAT_DATABASES": str(self.directory / "databases"),
            "PIPELINE_KAFKA": self.servers,
        }


def sums_of(records: list[list[Record]]) -> list[tuple[str, int, int]]:
    """Sums as the sinks write them."""
    found = []
    for record in (record for partition in records for record in partition):
        value = msgspec.json.decode(record.value or b"")
        found.append(((record.key or b"").decode(), value["count"], value["total"]))
    return found

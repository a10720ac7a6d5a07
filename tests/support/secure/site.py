"""The directory of one test on a `SecureKafka`: an app with its topics, and commands that run as different users."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

import msgspec

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.core.permissions import Grant, Operation, ResourceKind, Role
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.support.pages import ROOT
from tests.support.secure.commands import Commands
from tests.support.secure.kafka import SecureKafka, User

__all__ = ["APP", "PARTITIONS", "SecureSite", "checkpoints_in"]

APP = "tests.support.secure.delays:app"
PARTITIONS = 2
COMMAND_S = 90.0


def checkpoints_in(store: Path | None) -> dict[str, str]:
    """The settings of a checkpoint store in a directory, as variables."""
    if store is None:
        return {}
    return {"PIPELINE_CHECKPOINT_STORE": f"file://{store}", "PIPELINE_CHECKPOINT_INTERVAL_S": "0.5"}


_COMMANDS = Commands()


class SecureSite:
    """One app with users of its own. Every command of a test runs over TLS with a password."""

    def __init__(self, kafka: SecureKafka, name: str, directory: Path, partitions: int = PARTITIONS) -> None:
        self.kafka = kafka
        self.name = name
        self.directory = directory
        self.log = directory / "worker.log"
        self.log.touch()
        self.super_user = KafkaSettings(kafka.plain)
        self._children: list[BaseProcess] = []
        self._printed: dict[tuple[Role, Path | None], list[Grant]] = {}
        with closing(KafkaCluster(self.super_user)) as cluster:
            cluster.create([TopicSpec(f"{name}-{topic}", partitions) for topic in ("flights", "totals")])
        with closing(sqlite3.connect(directory / "totals.db")) as database:
            database.execute(
                "CREATE TABLE totals (carrier TEXT PRIMARY KEY, flights INTEGER, minutes INTEGER)"
            )
            database.commit()

    def printed(self, role: Role, store: Path | None = None) -> list[Grant]:
        """The permissions that `pipeline acls` prints for a role. `store`: the directory of checkpoints."""
        if (role, store) not in self._printed:
            self._printed[role, store] = self._print(role, store)
        return self._printed[role, store]

    def _print(self, role: Role, store: Path | None) -> list[Grant]:
        done = self.run(
            *("acls", APP, "--role", role.value, "--only-reads", f"{self.name}-flights"),
            *("--topic", f"{self.name}-flights", "--json"),
            variables=checkpoints_in(store),
        )
        assert done.returncode == 0, done.stderr
        (found,) = msgspec.json.decode(done.stdout)
        return [
            Grant(
                ResourceKind(each["resource"]["type"]),
                each["resource"]["name"],
                tuple(map(Operation, each["operations"])),
                each["resource"]["patternType"] == "prefix",
            )
            for each in found["acls"]
        ]

    def user(self, role: Role, grants: Iterable[Grant] | None = None) -> User:
        """The user of a role, with these permissions only. Default: those that `pipeline acls` prints for the role."""
        made = self.kafka.user(f"{self.name}-{role}")
        self.kafka.grant_only(made, self.printed(role) if grants is None else grants)
        return made

    def run(
        self, *arguments: str, user: User | None = None, variables: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Run `pipeline ...` to its end, as this user."""
        return _COMMANDS.run(arguments, self.directory, self.environment(user, variables), COMMAND_S)

    def worker(
        self,
        user: User | None,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> BaseProcess:
        """Start `pipeline worker` as this user. `log`: the file of its outputs; default: that of the site."""
        words = ["worker", APP, "--worker-id", "w1", *arguments]
        log = log or self.log
        child = _COMMANDS.start(words, self.directory, self.environment(user, variables), log, log)
        self._children.append(child)
        return child

    def stop(self, worker: BaseProcess) -> int:
        """Send SIGTERM. Returns the exit code."""
        assert worker.pid is not None
        if worker.is_alive():
            os.kill(worker.pid, signal.SIGTERM)
        worker.join(COMMAND_S)
        assert worker.exitcode is not None, "the worker does not stop"
        return worker.exitcode

    def flights(self, rows: Sequence[tuple[str, int]], name: str = "flights.csv") -> Path:
        """Write a file to load."""
        path = self.directory / name
        path.write_text("carrier,dep_delay\n" + "".join(f"{carrier},{delay}\n" for carrier, delay in rows))
        return path

    def repair(self) -> None:
        """Let the handler accept every record from now on."""
        (self.directory / "fixed").touch()

    def totals(self) -> list[tuple[int, int]]:
        """All committed outputs, sorted: (flights, minutes). Read as the super user."""
        found: list[tuple[int, int]] = []
        with closing(KafkaJournalReader(self.super_user)) as reader:
            for number in range(PARTITIONS):
                place = TopicPartition(f"{self.name}-totals", number)
                bounds = reader.bounds(place)
                for _, value in reader.read(place, bounds.start, bounds.stable_end):
                    total = msgspec.json.decode(value)
                    found.append((total["flights"], total["minutes"]))
        return sorted(found)

    def journal_start(self, group: str, partition: int) -> int:
        """The first offset of a journal."""
        with closing(KafkaJournalReader(self.super_user)) as reader:
            return reader.bounds(TopicPartition(f"{self.name}.{group}.journal", partition)).start

    def rows(self) -> list[tuple[str, int, int]]:
        """The rows of the sink."""
        with closing(sqlite3.connect(self.directory / "totals.db")) as database:
            return database.execute(
                "SELECT carrier, flights, minutes FROM totals ORDER BY carrier"
            ).fetchall()

    def cluster_id(self) -> str:
        """The id of the cluster."""
        with closing(KafkaCluster(self.super_user)) as cluster:
            return cluster.cluster_id()

    def mirrored(self, group: str) -> dict[TopicPartition, int]:
        """The positions in the consumer group."""
        with closing(KafkaCluster(self.super_user)) as cluster:
            return cluster.committed(f"{self.name}.{group}")

    def close(self) -> None:
        """End the processes that this test started."""
        for child in self._children:
            if child.is_alive():
                child.kill()
            child.join()

    def environment(self, user: User | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The settings of this user as variables, because several users run at once in one directory."""
        without = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        login = self.kafka.variables(user) if user is not None else {}
        return {
            **without,
            **login,
            "PYTHONPATH": str(ROOT),
            "DELAYS_PREFIX": self.name,
            "COLUMNS": "200",
            **(more or {}),
        }

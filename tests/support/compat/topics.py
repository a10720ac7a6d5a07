"""The topics of the programs under test: creates them, fills them with numbered rows, and reads committed records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.support.checker import KafkaLog
from tests.support.checker.log import Place, Record

__all__ = ["INPUT_COLUMNS", "KEYS", "Input", "Names", "Topics", "inputs_of", "write_rows"]

KEYS = 13
INPUT_COLUMNS = ("--key", "k", "--id", "id", "--timestamp", "t")
_BEGIN_MS = 1_767_225_600_000  # 2026-01-01: rows are a second apart
_REQUEST_S = 30.0
_TRANSACTIONS = "__transaction_state"


class Input(NamedTuple):
    """A row that the program may read."""

    partition: int
    offset: int
    key: str
    n: int
    id: str


def write_rows(path: Path, begin: int, end: int) -> Path:
    """Write the rows `begin` to `end` for `pipeline produce`. Each tenth row repeats the id of an earlier one.

    Most repeat an id from hundreds of rows earlier, because a build must know the ids that the other build has seen.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["k", "id", "t", "n"])
        for n in range(begin, end):
            back = 41 * KEYS if n >= 42 * KEYS else KEYS  # to a row of the same key that is never refused
            original = n - back if n % 10 == 9 and n >= KEYS else n
            writer.writerow([f"key-{n % KEYS}", f"id-{original}", _BEGIN_MS + n * 1000, n])
    return path


class Names(NamedTuple):
    """The names on a Kafka: topics, groups, and all transactional ids that were used."""

    topics: set[str]
    groups: set[str]
    transactional_ids: set[str]


class Topics:
    """The topics of a Kafka."""

    def __init__(self, servers: str) -> None:
        self.log = KafkaLog(servers, lambda name: not name.startswith("__"))
        self._servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})

    def create(self, partitions: int, *names: str) -> None:
        """Create topics whose records never expire, because the records of the fixture get older every day."""
        topics = [NewTopic(name, partitions, 1, config={"retention.ms": "-1"}) for name in names]
        for made in self._admin.create_topics(topics, request_timeout=_REQUEST_S).values():
            made.result(_REQUEST_S)

    def committed(self, topic: str) -> list[list[Record]]:
        """The committed records of each partition; empty for a topic that does not exist."""
        facts = self.log.topics().get(topic)
        places = [Place(topic, number) for number in range(facts.partitions if facts else 0)]
        read = self.log.read(dict.fromkeys(places, 0))
        return [list(read[place].records) for place in places]

    def count(self, topic: str) -> int:
        """The number of committed records in a topic."""
        return sum(map(len, self.committed(topic)))

    def begins(self, topic: str) -> list[int]:
        """The first offset of each partition."""
        partitions = self.log.topics()[topic].partitions
        read = self.log.read({Place(topic, number): 0 for number in range(partitions)})
        return [read[Place(topic, number)].begin for number in range(partitions)]

    def written(self, topic: str) -> int:
        """The sum of a topic's high watermarks, which includes records that are not committed."""
        partitions = self.log.topics()[topic].partitions
        return sum(
            each.end for each in self.log.read({Place(topic, n): 0 for n in range(partitions)}).values()
        )

    def names(self) -> Names:
        """All names, except those of Kafka itself."""
        topics = {name for name in self._admin.list_topics(timeout=_REQUEST_S).topics if name[:2] != "__"}
        groups = self._admin.list_consumer_groups(request_timeout=_REQUEST_S).result(_REQUEST_S)
        with closing(KafkaLog(self._servers, lambda name: name == _TRANSACTIONS)) as log:
            places = [Place(_TRANSACTIONS, n) for n in range(log.topics()[_TRANSACTIONS].partitions)]
            records = [r for read in log.read(dict.fromkeys(places, 0)).values() for r in read.records]
        ids = {(record.key or b"")[4:].decode() for record in records}  # after version u16 and length u16
        return Names(topics, {group.group_id for group in groups.valid}, ids)

    def close(self) -> None:
        self.log.close()
        del self._admin


def inputs_of(records: Sequence[Sequence[Record]]) -> list[list[Input]]:
    """The rows in each partition of a topic of orders."""
    return [[_input(number, record) for record in found] for number, found in enumerate(records)]


def _input(partition: int, record: Record) -> Input:
    row = msgspec.json.decode(record.value or b"")
    ids = [value for name, value in record.headers if name == "event-id"]
    return Input(partition, record.offset, (record.key or b"").decode(), row["n"], (ids[0] or b"").decode())

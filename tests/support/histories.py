"""A correct history of one task as committed records, written by hand, for tests that break it: `History`."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.support.checker import Checker, Promise
from tests.support.checker.log import Headers, Place, Read, Record, TopicFacts

__all__ = ["INPUT", "JOURNAL", "OUTPUT", "PROMISE", "History", "WrittenLog", "check"]

INPUT = Place("numbers", 0)
OUTPUT = Place("sums", 0)
JOURNAL = Place("app.main.journal", 0)
LETTERS = Place("app.main.dead-letters", 0)
REPLAYS = Place("app.main.replays", 0)
PROMISE = Promise("app.main", "numbers", "sums", row=True)

_KINDS = {"genesis": 1, "acquire": 2, "commit": 3, "checkpoint": 4, "release": 5, "reset": 6, "retire": 7}


class WrittenLog:
    """`Log` of records that a test has written. `partitions`: the number for topics with more than one."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}
        self.records: dict[Place, list[Record]] = {}
        self.ends: dict[Place, int] = {}
        self.begins: dict[Place, int] = {}
        self.open_at: dict[Place, int] = {}
        self.ids: dict[str, str] = {}

    def topics(self) -> Mapping[str, TopicFacts]:
        names = {place.topic for place in self.ends}
        return {name: TopicFacts(self.ids.get(name, "id"), self.partitions.get(name, 1)) for name in names}

    def read(self, starts: Mapping[Place, int]) -> Mapping[Place, Read]:
        found = {}
        for place, start in starts.items():
            begin, end = self.begins.get(place, 0), self.ends.get(place, 0)
            stable = self.open_at.get(place, end)
            records = [r for r in self.records.get(place, []) if max(start, begin) <= r.offset < stable]
            found[place] = Read(records, begin, stable, end, stable < end)
        return found

    def append(self, place: Place, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Write a record; its offset."""
        offset = self.ends.get(place, 0)
        self.records.setdefault(place, []).append(Record(offset, key, value, tuple(headers)))
        self.ends[place] = offset + 1
        return offset

    def skip(self, place: Place) -> None:
        """A transaction's marker, or an aborted record."""
        self.ends[place] = self.ends.get(place, 0) + 1

    def truncate(self, place: Place, begin: int) -> None:
        self.begins[place] = begin
        self.records[place] = [r for r in self.records[place] if r.offset >= begin]

    def recreate(self, topic: str, topic_id: str) -> None:
        """Delete a topic and create it again."""
        for place in [place for place in self.ends if place.topic == topic]:
            self.records[place], self.ends[place], self.begins[place] = [], 0, 0
        self.ids[topic] = topic_id


class History:
    """Writes inputs, outputs and entries of app `app`, group `main`, partition 0, to `log`.

    The table contains the last sum of each key. Fields of an entry can be set to wrong values.
    """

    def __init__(self) -> None:
        self.log = WrittenLog()
        self.position = 0
        self.replayed = 0  # the position in the topic of replays
        self.seq = 0
        self.chain = bytes(16)
        self.bytes = 0
        self.checkpoint = -1
        self.places: dict[int, tuple[int, bytes]] = {}
        self.sums: dict[bytes, int] = {}
        for place in (INPUT, OUTPUT, JOURNAL):
            self.log.ends[place] = 0

    @classmethod
    def begun(cls, inputs: int = 0) -> History:
        """Write the genesis, an acquire entry, and this many inputs, each in its own commit."""
        history = cls()
        history.entry("genesis", owner="")
        history.entry("acquire")
        for number in range(inputs):
            history.step(number + 1)
        return history

    def input(self, value: int, key: bytes = b"a", event_id: bytes | None = None) -> int:
        """Send an input; its offset."""
        headers = [] if event_id is None else [("event-id", event_id)]
        return self.log.append(INPUT, key, b"%d" % value, headers)

    def output(self, offset: int, key: bytes, value: bytes, place: Place = OUTPUT) -> None:
        """Write an output of an input, and the marker after it."""
        self.log.append(place, key, value, [("made-from", f"app.main numbers 0 {offset}".encode())])
        self.log.skip(place)

    def letter(self, offset: int, topic_id: str = "") -> None:
        """Write a dead letter of an input."""
        said = {"topic": "numbers", "partition": "0", "offset": str(offset), "topic-id": topic_id}
        headers = [(f"dead-letter-{name}", text.encode()) for name, text in said.items()]
        self.log.append(LETTERS, b"a", b"x", headers)
        self.log.skip(LETTERS)

    def replay(self, offset: int) -> None:
        """Replay a dead letter."""
        body = msgspec.msgpack.encode({"topic": "numbers", "partition": 0, "offset": offset})
        self.log.append(REPLAYS, b"a", b"\x01" + zlib.crc32(body).to_bytes(4, "big") + body)
        self.log.skip(REPLAYS)

    def sum(self, value: int, key: bytes = b"a") -> bytes:
        """The key's sum after one more value."""
        self.sums[key] = self.sums.get(key, 0) + value
        return b"%d" % self.sums[key]

    def step(self, value: int, key: bytes = b"a") -> None:
        """Write an input, its output, and the commit of both."""
        offset, result = self.input(value, key), self.sum(value, key)
        self.output(offset, key, result)
        self.position = offset + 1
        self.entry("commit", delta={b"TTTT" + key: result})

    def entry(self, kind: str, **said: Any) -> int:
        """Write an entry; its offset. `said`: fields with other values than the correct ones."""
        marker = said.pop("marker", True)
        seq = said.pop("seq", self.seq + 1)
        nonce = said.pop("nonce", b"nonce-%d-%d" % (seq, self.log.ends[JOURNAL]))
        fields = {
            "kind": _KINDS[kind],
            "seq": seq,
            "owner": "w",
            "nonce": nonce,
            "positions": {}
            if kind == "genesis"
            else {"numbers": self.position, REPLAYS.topic: self.replayed},
            "delta": {},
            "identity": ["cluster", "p", {"numbers": ["id", 1], "app.main.replays": ["id", 1]}, {}, "t"]
            if kind == "genesis"
            else None,
            "wall_ms": 1,
            "stream_time_ms": -1,
            "extra": {},
            "checkpoint": self.checkpoint,
            "journal_bytes": self.bytes,
        }
        previous = said.pop("previous", self.chain)
        chunks = said.pop("chunks", 1)
        body = msgspec.msgpack.encode([*(fields | said).values()])
        self.chain = hashlib.blake2b(previous + body, digest_size=16).digest()
        begin = self.log.ends[JOURNAL]
        for chunk in _chunks(_KINDS[kind], seq, self.chain, body, chunks):
            self.log.append(JOURNAL, None, chunk)
            self.bytes += len(chunk)
        if marker:
            self.log.skip(JOURNAL)
        self.seq = seq
        self.places[seq] = begin, self.chain
        if kind == "checkpoint":
            self.checkpoint = begin
        return begin

    def kept(self, *seqs: int) -> dict[str, bytes]:
        """`extra` of a checkpoint entry that keeps the states of these entries."""
        refs = [[seq, *self.places[seq], b"n", b"d", 1, 1, 1] for seq in seqs]
        return {"checkpoints": b"\x01" + msgspec.msgpack.encode(refs)}


def _chunks(kind: int, seq: int, chain: bytes, body: bytes, count: int) -> list[bytes]:
    size = -(-len(body) // count)
    found = []
    for index in range(count):
        payload = body[index * size : (index + 1) * size]
        place = index.to_bytes(4, "big") + count.to_bytes(4, "big")
        checksum = zlib.crc32(chain + place + payload).to_bytes(4, "big")
        found.append(b"XJ\x01" + bytes([kind]) + place + seq.to_bytes(8, "big") + chain + checksum + payload)
    return found


def check(history: History, promise: Promise = PROMISE) -> None:
    """All that a test may call at its end."""
    Checker(history.log, promise).finish(history.log)

"""The history of one task, verified entry by entry as it grows: `Journal`, `verify_begun`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.checker.entries import CheckpointRef, Chunks, DamagedError, Entry, chain_after
from tests.support.checker.log import Place, Record

__all__ = ["Journal", "Segment", "verify_begun"]

# Which entry may follow which. "free": no worker owns the task; "owned": the last acquire's owner does.
_AFTER = {
    "genesis": "free",
    "acquire": "owned",
    "commit": "owned",
    "checkpoint": "owned",
    "release": "free",
    "reset": "free",
    "retire": "retired",
}
_ALLOWED = {
    "free": {"acquire", "reset", "retire"},
    "owned": {"acquire", "commit", "checkpoint", "release", "reset", "retire"},
    "retired": {"release"},
}
_OWNERS_OWN = {"commit", "checkpoint", "release"}


@dataclass
class Segment:
    """The offsets [start, end) of one input that the task has read since its start, or since a reset.

    `start` is None if the journal was truncated before the checker first read it.
    """

    topic_id: str
    start: int | None
    end: int


class Journal:
    """One partition of a journal. `problems`: the errors that were found, as text; later entries are not verified.

    `partitions`: how many partitions the journal has. That is the number of tasks, which only the first entry says.
    """

    def __init__(self, place: Place, partitions: int = 0) -> None:
        self.place = place
        self._partitions = partitions
        self.problems: list[str] = []
        self.last: Entry | None = None
        self.genesis_seen = False
        self._seeding = (
            False  # whether only rows that another program had were seen, in the genesis transaction
        )
        self.gaps = False  # entries were truncated before the checker read them
        self.segments: dict[str, list[Segment]] = {}
        self.rows: dict[bytes, bytes] = {}
        self._chunks = Chunks()
        self._state = ""
        self._owner = ""
        self._nonces: set[bytes] = set()
        self._places: dict[int, tuple[int, bytes]] = {}  # offset and chain by seq
        self._checkpoint = -1
        self._kept: Sequence[CheckpointRef] = ()
        self._topic_ids: Mapping[str, str] = {}
        self.tasks = 0  # of the group; 0 in version 1, which has one for each partition

    def input(self, name: str) -> Place:
        """The partition of an input, of which an entry has a position."""
        topic, _, item = name.rpartition("/")
        if not item.isdecimal() or not topic:
            return Place(name, self.place.partition)
        return Place(topic, self.place.partition + int(item) * self.tasks)

    def name(self, place: Place) -> str | None:
        """The name of an input; None if another task reads it."""
        item, other = divmod(place.partition - self.place.partition, self.tasks or 1)
        if other or item < 0 or (item and not self.tasks):
            return None
        return f"{place.topic}/{item}" if item else place.topic

    @property
    def group(self) -> str:
        """`app.group`."""
        return self.place.topic.removesuffix(".journal")

    def add(self, records: Sequence[Record], begin: int) -> None:
        """Verify the entries since the last call. `begin`: the current start of the log."""
        if self.problems:
            return
        try:
            for entry in self._chunks.entries(records):
                gap = self._verify(entry, begin)
                if self.problems:
                    return
                self._apply(entry, gap=gap)
        except DamagedError as error:
            self._wrong(str(error))

    def without_id(self) -> dict[str, dict[str, int]]:
        """The topics whose ids no entry has told, because earlier entries were truncated unread.

        Of each topic, the positions of its inputs by name.
        """
        found: dict[str, dict[str, int]] = {}
        for name, segments in self.segments.items():
            topic = name.partition("/")[0]
            if topic not in self._topic_ids:
                found.setdefault(topic, {})[name] = segments[-1].end
        return found

    def name_topic(self, topic: str, topic_id: str) -> None:
        """Use this id for a topic that has none."""
        self._topic_ids = {**self._topic_ids, topic: topic_id}
        for name, segments in self.segments.items():
            if name.partition("/")[0] == topic:
                last = segments[-1]
                segments[-1] = Segment(topic_id, last.start, last.end)

    def verify_truncation(self, begin: int) -> None:
        """Verify that only complete entries that the kept checkpoints contain were truncated."""
        if self._chunks.half:
            self._wrong("the last entry is not whole")
        if begin == 0 or self.last is None or self.problems:
            return
        oldest = min((ref.offset for ref in self._kept), default=-1)
        if begin > oldest:
            self._wrong(f"it was truncated to {begin}, above the oldest checkpoint's entry at {oldest}")

    def _verify(self, entry: Entry, begin: int) -> bool:
        """Verify an entry. Less can be verified after entries that were truncated before the checker read them."""
        last, which = self.last, f"entry {entry.seq} at {entry.offset}"
        gap = last is None and entry.seq != 1
        if last is not None and entry.seq != last.seq + 1:
            gap = entry.seq > last.seq and begin > last.end
            if not gap:
                self._wrong(f"{which} follows entry {last.seq} at {last.offset}")
                return False
        elif gap and begin == 0:
            self._wrong(f"{which} is the first one")
        if (entry.seq == 1) != (entry.kind == "genesis"):
            self._wrong(f"{which} is a {entry.kind} entry")
        if not gap:
            self._verify_next(entry, last, which)
        if entry.nonce in self._nonces:
            self._wrong(f"{which} has the nonce of an entry before it")
        if last is not None:
            self._verify_positions(entry, last, which)
        for ref in entry.kept:
            known = self._places.get(ref.seq)
            if known is not None and known != (ref.offset, ref.chain):
                self._wrong(
                    f"{which} keeps a checkpoint of entry {ref.seq} at {ref.offset}, which is another one"
                )
            if ref.seq >= entry.seq:
                self._wrong(f"{which} keeps a checkpoint of entry {ref.seq}, which is not before it")
        return gap

    def _verify_positions(self, entry: Entry, last: Entry, which: str) -> None:
        for name, position in last.positions.items():
            if entry.positions.get(name, -1) < position and not self._may_fall(name, entry):
                self._wrong(f"{which}: {name} falls from {position} to {entry.positions.get(name)}")
        if entry.version != last.version:
            self._wrong(f"{which} is of version {entry.version}, the one before of {last.version}")
        if entry.tasks is not None and self.tasks not in {0, entry.tasks}:
            self._wrong(f"{which} is of {entry.tasks} tasks, the ones before of {self.tasks}")
        if entry.version == 1:
            return
        for key in entry.delta:
            partition = int.from_bytes(key[1:3], "big")
            if key[:1] != b"\x01" or (self.tasks and partition % self.tasks != self.place.partition):
                self._wrong(f"{which} has a row of another task: {key[:8].hex()}")
                return

    def _may_fall(self, name: str, entry: Entry) -> bool:
        """Whether a position may fall: in a reset; and the replays topic may be replaced, but only at an acquire."""
        if entry.kind == "reset":
            return entry.reset is None or self.input(name).partition in entry.reset
        topic = name.partition("/")[0]
        return topic in entry.replaced and entry.kind == "acquire" and topic == f"{self.group}.replays"

    def _verify_next(self, entry: Entry, last: Entry | None, which: str) -> None:
        """Verify an entry whose predecessor was read, or that is the first one."""
        if entry.chain != chain_after(last.chain if last is not None else b"", entry.body):
            self._wrong(f"{which} does not continue the entry before it: the chain differs")
        counted = last.previous_bytes + last.size if last is not None else 0
        if entry.previous_bytes != counted:
            self._wrong(f"{which} counts {entry.previous_bytes} bytes before it, there are {counted}")
        if last is None:
            return
        if self._seeding and entry.kind == "commit" and entry.owner == last.owner:
            if entry.offset != last.end:
                self._wrong(
                    f"{which} has rows of another program, and is not in the transaction of the genesis"
                )
            return
        if entry.offset <= last.end:
            self._wrong(f"{which} is in one transaction with the entry before it, or in front of its marker")
        if entry.checkpoint != self._checkpoint:
            self._wrong(
                f"{which} names a checkpoint at {entry.checkpoint}, the last one is at {self._checkpoint}"
            )
        if self._state and entry.kind not in _ALLOWED[self._state]:
            self._wrong(f"{which}: a {entry.kind} entry of {entry.owner!r} follows a {last.kind} entry")
        if self._state == "owned" and entry.kind in _OWNERS_OWN and entry.owner != self._owner:
            self._wrong(
                f"{which}: a {entry.kind} entry of {entry.owner!r}, but {self._owner!r} owns the task"
            )

    def _apply(self, entry: Entry, *, gap: bool) -> None:
        self.gaps |= gap
        began = entry.kind == "genesis" and entry.owner != ""
        self._seeding = began or (self._seeding and entry.kind == "commit")
        self._state = "free" if self._seeding else _AFTER[entry.kind]
        if entry.kind == "acquire" or gap:
            self._owner = entry.owner
        self._checkpoint = entry.offset if entry.kind == "checkpoint" else entry.checkpoint
        if entry.kind == "checkpoint":
            self._kept = entry.kept
        if entry.tasks is not None:
            self.tasks = entry.tasks
        elif entry.version > 1 and not self.tasks:
            self.tasks = self._partitions
        if entry.kind == "reset":
            self._discard(entry.reset)
        for key, value in entry.delta.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self._topic_ids = entry.topic_ids if entry.topic_ids is not None else self._topic_ids
        for name, position in entry.positions.items():
            segments = self.segments.setdefault(name, [])
            topic = name.partition("/")[0]
            topic_id = self._topic_ids.get(topic, "")
            begins = entry.kind == "reset" and (
                entry.reset is None or self.input(name).partition in entry.reset
            )
            new = not segments or begins or topic in entry.replaced
            if not new and segments[-1].topic_id in {topic_id, ""}:
                segments[-1] = Segment(topic_id, segments[-1].start, position)
            else:
                known = not gap or begins
                segments.append(Segment(topic_id, position if known else None, position))
        self._nonces.add(entry.nonce)
        self._places[entry.seq] = entry.offset, entry.chain
        self.genesis_seen |= entry.kind == "genesis"
        self.last = entry

    def _discard(self, partitions: frozenset[int] | None) -> None:
        """Discard all rows, or those of some partitions."""
        for key in list(self.rows):
            if partitions is None or int.from_bytes(key[1:3], "big") in partitions:
                del self.rows[key]

    def _wrong(self, what: str) -> None:
        self.problems.append(f"{self.place}: {what}")


def verify_begun(journals: Sequence[Journal], partitions: int) -> list[str]:
    """Verify that the genesis is in all partitions or in none."""
    begun = sorted(journal.place.partition for journal in journals if journal.last is not None)
    if not begun or len(begun) == partitions:
        return []
    return [f"{journals[0].place.topic}: only partitions {begun} of {partitions} have begun"]

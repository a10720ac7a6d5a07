"""One task for people: its last entries, the rows that they wrote, and its dead letters: `TaskView`.

Rows come from the journal, not from a state, so they are the same with and without workers. A row that no recent entry
wrote is searched for backwards, up to `SEARCHED_BYTES`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import DeclaredTable
from pipeline.api.histories import HistoryKey
from pipeline.api.table import table_prefix
from pipeline.api.windows import WindowKey
from pipeline.core.entry_body import entry_partitions, reset_partitions, split_row
from pipeline.core.inputs import TaskInputs, row_prefix
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import DEAD_LETTER_READER, TaskId, TopicPartition
from pipeline.core.records import readable
from pipeline.errors import InputError
from pipeline.ops.dead_letters.letters import DeadLetter, dead_letter_of
from pipeline.ops.dead_letters.marks import Marks, decode_mark, marks_place
from pipeline.ops.history.record_commits import inputs_in
from pipeline.ops.overview import Clients
from pipeline.ops.reading import committed_records
from pipeline.ports import Clock, JournalBounds, JournalReader, TopicInfo
from pipeline.runtime.commit.journal_reader import complete_entries, first_entry, last_entries, last_entry

__all__ = ["TaskView"]

ENTRIES = 20
ENTRIES_BYTES = 2 << 20
ROWS = 50  # of each table
LETTERS = 30
SEARCHED_BYTES = 16 << 20
_LETTER_OFFSETS = 200  # of each partition that is read, if there are few
_ALL_PARTITIONS = 8  # a dead-letter topic with more is read only where letters of the task with keys are
_SHOWN_CHARACTERS = 2_000
_PREFIX_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Row:
    """A table write. `entry`: the one that wrote it. `key`: as in format 1."""

    entry: JournalEntry
    partition: int
    key: bytes
    data: bytes | None


class TaskView:
    """Reads one task at a time. Use from one thread at a time.

    Args:
        app: The name of the app.
        declared: Its declarations, to decode keys and values; None: they are shown as text.
        target: The app in commands: MODULE:APP.
        options: What commands need besides, such as `--kafka HOST:PORT`; it begins with a blank if it is not empty.
        clients: For Kafka.
        clock: The clock.
    """

    def __init__(
        self,
        app: str,
        declared: DeclaredApp | None,
        target: str,
        options: str,
        clients: Clients,
        clock: Clock,
    ) -> None:
        self._app = app
        self._target = target
        self._options = options
        self._clients = clients
        self._clock = clock
        self._tables: Mapping[str, Mapping[bytes, DeclaredTable[Any, Any]]] = (
            {g.name: {table_prefix(t.name): t for t in g.tables.values()} for g in declared.groups}
            if declared is not None
            else {}
        )
        self._declared = declared is not None
        self._names: dict[bytes, str] = {}  # of tables by prefix, as journals name them
        self._marks: tuple[int, str, Marks] = 0, "", {}  # up to which offset of the topic

    def read(self, group: str, number: int) -> dict[str, object]:
        """The document of a task. Raises InputError if it does not exist, UnreachableError."""
        task = TaskId(self._app, group, number)
        topics = self._clients.cluster.describe(
            [task.group_id.journal_topic, task.group_id.dead_letter_topic]
        )
        journal = topics.get(task.group_id.journal_topic)
        if journal is not None and number >= journal.partitions:
            raise InputError(f"group {group} has no task {number}", hint="reload the page")
        entries = self._entries(task) if journal is not None else []
        letters = topics.get(task.group_id.dead_letter_topic)
        inputs = TaskInputs(number, journal.partitions if journal is not None else 0)
        return {
            "now_ms": self._clock.wall_ms(),
            "group": group,
            "task": number,
            "partitions": entry_partitions(entries[-1].entry, inputs) if entries else [],
            "entries": [_entry(entry, before) for entry, before in _pairs(entries)][:ENTRIES],
            "tables": self._rows(task, entries),
            "dead_letters": self._letters(task, inputs, letters) if letters is not None else None,
        }

    def row(self, group: str, number: int, table: str, key: str) -> dict[str, object]:
        """The newest value of a key, from the journal. Raises InputError, UnreachableError.

        In a task with several partitions, each of them may have a row with this key. `command` shows all of them.
        """
        task = TaskId(self._app, group, number)
        definition = self._tables.get(group, {}).get(table_prefix(table))
        encoded = definition.key.encode(definition.parse_key(key)) if definition else key.encode()
        searched_key = table_prefix(table) + (encoded or b"")
        command = f"pipeline table show {table} {shlex.quote(key)} --app {self._target}{self._options}"
        inputs = inputs_in(task, self._clients.cluster)
        searched: JournalEntry | None = None
        emptied: set[int] = set()  # partitions that a later entry has reset
        for searched in self._backwards(task):
            body = searched.entry
            partitions = entry_partitions(body, inputs)
            for partition in partitions:
                full_key = searched_key if searched.version == 1 else row_prefix(partition) + searched_key
                if full_key in body.delta and partition not in emptied:
                    row = self._row(task, _Row(searched, partition, searched_key, body.delta[full_key]))
                    others = command if len(partitions) > 1 else ""
                    return {"row": row, "searched_to_seq": body.seq, "complete": True, "command": others}
            if body.kind is EntryKind.RESET:
                reset = reset_partitions(body)
                emptied.update(partitions if reset is None else reset)
            if body.kind is EntryKind.GENESIS or emptied.issuperset(partitions):
                return {"row": None, "searched_to_seq": body.seq, "complete": True, "command": ""}
        seq = searched.entry.seq if searched is not None else 0
        return {"row": None, "searched_to_seq": seq, "complete": False, "command": command}

    def _entries(self, task: TaskId) -> list[JournalEntry]:
        """The last entries with their table writes, oldest first, within the limit of bytes."""
        reader = self._clients.reader
        bounds = reader.bounds(task.journal)
        last = last_entry(task.journal, reader, bounds)
        if last is None:
            return []
        mean = max(1, last.size, last.journal_bytes // last.entry.seq)
        count = max(2, min(ENTRIES + 1, ENTRIES_BYTES // mean))
        found = last_entries(task.journal, reader, bounds, count, deltas=True)
        self._note_tables(found)
        if not self._declared and not self._names:
            self._note_first_tables(task, reader, bounds)
        return found

    def _backwards(self, task: TaskId) -> Iterator[JournalEntry]:
        """The entries from the last one backwards, up to `SEARCHED_BYTES`. Each slice is read forwards."""
        reader = self._clients.reader
        bounds = reader.bounds(task.journal)
        end, span, left = bounds.stable_end, 64, SEARCHED_BYTES
        while end > bounds.start and left > 0:
            start = max(bounds.start, end - span)
            found = list(complete_entries(task, reader, start, end))
            yield from reversed(found)
            left -= sum(entry.size for entry in found)
            end, span = (found[0].offset if found else start), span * 4

    def _note_tables(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            if entry.entry.identity is not None:
                self._names.update({table_prefix(name): name for name in entry.entry.identity.tables})

    def _note_first_tables(self, task: TaskId, reader: JournalReader, bounds: JournalBounds) -> None:
        """The first entry of a journal has the names of the tables, unless it was deleted after a checkpoint."""
        first = first_entry(task, reader, bounds.start, bounds.stable_end)
        self._note_tables([first] if first is not None else [])

    def _rows(self, task: TaskId, entries: Sequence[JournalEntry]) -> list[dict[str, object]]:
        """The newest rows of each table. A table without a recent write is listed, too."""
        newest: dict[bytes, dict[bytes, _Row]] = {}
        for entry in reversed(entries):
            for full_key, data in reversed(entry.entry.delta.items()):
                partition, key = split_row(full_key, entry.version, task.number)
                rows = newest.setdefault(key[:_PREFIX_BYTES], {})
                if len(rows) <= ROWS:
                    rows.setdefault(full_key, _Row(entry, partition, key, data))
        known = self._tables.get(task.group, {}) if self._declared else self._names
        found = []
        for prefix in dict.fromkeys([*known, *(newest if not self._declared else [])]):
            written = list(newest.get(prefix, {}).values())
            name = self._name(task, prefix)
            if name:
                shown = [self._row(task, row) for row in written[:ROWS]]
                found.append({"name": name, "rows": shown, "more": len(written) > ROWS})
        return found

    def _name(self, task: TaskId, prefix: bytes) -> str:
        definition = self._tables.get(task.group, {}).get(prefix)
        return definition.name if definition is not None else self._names.get(prefix, "")

    def _row(self, task: TaskId, row: _Row) -> dict[str, object]:
        definition = self._tables.get(task.group, {}).get(row.key[:_PREFIX_BYTES])
        key, body = row.key[_PREFIX_BYTES:], row.entry.entry
        return {
            "partition": row.partition,
            "key": _text(key, definition.key.decode if definition else None),
            "value": None
            if row.data is None
            else _text(row.data, _decoder(definition) if definition else None),
            "seq": body.seq,
            "at_ms": body.wall_ms,
            "worker": body.owner,
        }

    def _letters(self, task: TaskId, inputs: TaskInputs, topic: TopicInfo) -> dict[str, object]:
        reader = self._clients.reader
        numbers: Sequence[int] = range(topic.partitions)
        within, complete = {}, topic.partitions <= _ALL_PARTITIONS
        if not complete:
            numbers = inputs.partitions(topic.partitions) or [task.number % topic.partitions]
        most = _LETTER_OFFSETS * _ALL_PARTITIONS // max(_ALL_PARTITIONS, len(numbers))
        for number in numbers:
            bounds = reader.bounds(TopicPartition(topic.name, number))
            start = max(bounds.start, bounds.stable_end - most)
            complete &= start == bounds.start
            within[number] = range(start, bounds.stable_end)
        marks = self._read_marks(task, topic)
        with closing(self._clients.sources.open(DEAD_LETTER_READER)) as source:
            found = [
                letter
                for record in committed_records(topic, reader, source, self._clock, within)
                if (letter := dead_letter_of(record)) is not None
                and inputs.owns(letter.letter.origin.partition)
            ]
        found.sort(key=lambda letter: (letter.letter.failed_ms, letter.offset), reverse=True)
        return {
            "topic": topic.name,
            "complete": complete and len(found) <= LETTERS,
            "letters": [self._letter(task, letter, marks) for letter in found[:LETTERS]],
        }

    def _letter(self, task: TaskId, found: DeadLetter, marks: Marks) -> dict[str, object]:
        letter, mark = found.letter, marks.get(found.id)
        command = (
            f"pipeline deadletters replay {self._target} {found.name} --group {task.group}{self._options}"
        )
        return {
            "id": found.name,
            "topic": letter.origin.topic,
            "partition": letter.origin.partition,
            "offset": letter.origin.offset,
            "failed_ms": letter.failed_ms,
            "handler": letter.handler,
            "error": _cut(readable(letter.error.encode(errors="replace"))),
            "tries": letter.tries,
            "replay": letter.replay,
            "state": "open" if mark is None else "discarded" if mark.discarded else "replayed",
            "key": None if found.key is None else _cut(readable(found.key)),
            "value": None if found.value is None else _cut(readable(found.value[:_SHOWN_CHARACTERS])),
            "command": command,
        }

    def _read_marks(self, task: TaskId, topic: TopicInfo) -> Marks:
        """The marks of the group's letters; only those that are new are read."""
        place = marks_place(task.group_id)
        if not self._clients.cluster.describe([place.topic]):
            return {}
        reader = self._clients.reader
        bounds = reader.bounds(place)
        position, key, marks = self._marks
        if key != topic.topic_id or bounds.stable_end < position:
            position, marks = bounds.start, {}
        for _, data in reader.read(place, max(position, bounds.start), bounds.stable_end):
            mark = decode_mark(data, self._app) if data else None
            if mark is not None and mark.group == task.group and mark.topic_id == topic.topic_id:
                marks[mark.partition, mark.offset] = mark
        self._marks = bounds.stable_end, topic.topic_id, marks
        return marks


def _decoder(table: DeclaredTable[Any, Any]) -> Callable[[bytes], Any]:
    """Decodes a stored row, also one that has expired."""
    return lambda data: table.decoded_by(data, table.value_codec.decode)


def _pairs(entries: Sequence[JournalEntry]) -> Iterator[tuple[JournalEntry, JournalEntry | None]]:
    """Each entry with the one before it, newest first."""
    for index in range(len(entries) - 1, -1, -1):
        yield entries[index], entries[index - 1] if index else None


def _entry(entry: JournalEntry, before: JournalEntry | None) -> dict[str, object]:
    body = entry.entry
    return {
        "seq": body.seq,
        "kind": body.kind.name.lower(),
        "at_ms": body.wall_ms,
        "owner": body.owner,
        "records": body.offsets_since(before.entry) if before is not None else None,
        "writes": len(body.delta),
        "bytes": entry.size,
    }


def _text(data: bytes, decode: Callable[[bytes], Any] | None) -> str:
    """A key or a value as text. Bytes that the declared type does not fit are shown as they are."""
    if decode is not None:
        try:
            value = decode(data)
            if isinstance(value, HistoryKey):
                value = value._replace(
                    time_ms=value.time_ms - 1
                )  # a time in the bucket: its end is in the next one
            if isinstance(value, WindowKey | HistoryKey):
                value = str(value)
            return _cut(value if isinstance(value, str) else msgspec.json.encode(value).decode())
        except Exception:  # noqa: BLE001 - a codec of the user may raise anything
            return _cut(readable(data))
    return _cut(readable(data))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"

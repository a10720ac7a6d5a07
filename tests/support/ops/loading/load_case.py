"""Loads on an in-memory broker, and the expected records of the topic."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from pipeline.core.names import LOADS_TOPIC, load_transactional_id
from pipeline.errors import AbortableError, RetriableError, UnknownOutcomeError, UnreachableError
from pipeline.ops.loading.decisions import LoadRequest
from pipeline.ops.loading.file_sequence import FileSequence
from pipeline.ops.loading.files import InputFile
from pipeline.ops.loading.formats.compression import Opened
from pipeline.ops.loading.formats.readers import Reading
from pipeline.ops.loading.formats.rows import MissingKey, RowLimits
from pipeline.ops.loading.loader import LoadEnvironment, Loader, find_topic
from pipeline.ops.loading.positions import LoadOptions, LoadPosition, decode_position
from pipeline.ports import Executor, TopicSpec
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers
from pipeline.testing.system import InlineExecutor, ManualClock, SeededRandom

__all__ = ["ID", "KEYS", "NAME", "ROWS", "Case", "Crash", "Files", "csv_file", "csv_files"]

NAME = "t/f.csv"
ID = load_transactional_id(NAME)
KEYS = 7
ROWS = 53
BATCH = 10


class Crash(BaseException):
    """The process has crashed: none of its code runs any more."""


def csv_file(rows: int = ROWS) -> bytes:
    """Write rows whose key repeats every KEYS rows."""
    return b"k,n\n" + b"".join(b"k%d,%d\n" % (n % KEYS, n) for n in range(rows))


def csv_files(*ends: int) -> dict[str, bytes]:
    """Write the same rows to several files: each has the rows up to its number."""
    found: dict[str, bytes] = {}
    for begin, end in zip((0, *ends), ends, strict=False):
        rows = b"".join(b"k%d,%d\n" % (n % KEYS, n) for n in range(begin, end))
        found[f"{len(found)}.csv"] = b"k,n\n" + rows
    return found


Files = bytes | Mapping[str, bytes]


class Case:
    """An in-memory broker, and loads into its topic `t`."""

    def __init__(self, seed: int = 0) -> None:
        self.broker = MemoryBroker()
        self.broker.create(TopicSpec("t", 3))
        self.clock = ManualClock()
        self.random = SeededRandom(seed)
        self.executor: Callable[[], Executor] = InlineExecutor
        find_topic(MemoryCluster(self.broker), "t")

    def environment(self) -> LoadEnvironment:
        return LoadEnvironment(
            cluster=MemoryCluster(self.broker),
            producers=MemoryProducers(self.broker),
            journals=lambda: MemoryJournalReader(self.broker),
            clock=self.clock,
            random=self.random,
            executor=self.executor(),
            retry_backoff_ms=500,
        )

    def loader(
        self,
        data: Files,
        *,
        restart: bool = False,
        resume_only: bool = False,
        options: LoadOptions | None = None,
        missing_key: MissingKey = "error",
    ) -> Loader:
        target = find_topic(MemoryCluster(self.broker), "t")
        options = options or LoadOptions(format="csv", key="k")
        request = LoadRequest(
            name=NAME,
            topic="t",
            topic_id=target.topic_id,
            options=options,
            restart=restart,
            resume_only=resume_only,
        )
        files = {"f.csv": data} if isinstance(data, bytes) else data
        sequence = FileSequence(
            [InputFile(name, name, len(content)) for name, content in files.items()],
            Reading("t", options, missing_key, RowLimits(batch_rows=BATCH)),
            lambda path, _unpack: Opened(path, io.BytesIO(files[path]), None),
        )
        return Loader(self.environment(), request, sequence)

    def load(self, data: Files | None = None, *, restart: bool = False) -> LoadPosition:
        return self.loader(csv_file() if data is None else data, restart=restart).run(lambda _: None)

    def load_until_done(self, data: Files | None = None) -> LoadPosition:
        """Repeat the load, like a supervisor, until it succeeds."""
        for _ in range(30):
            try:
                return self.load(data)
            except (Crash, UnreachableError, AbortableError, RetriableError, UnknownOutcomeError):
                continue
        raise AssertionError("the load did not end")

    def values(self) -> list[bytes]:
        return [record.value() or b"" for record in self.broker.records("t")]

    def check(self, rows: int = ROWS, times: int = 1) -> None:
        """Check that every row is in the topic this many times, in the file's order for each key."""
        values = self.values()
        assert sorted(values) == sorted([b'{"k":"k%d","n":%d}' % (n % KEYS, n) for n in range(rows)] * times)
        if times == 1:
            for key in range(KEYS):
                mine = [v for v in values if v.startswith(b'{"k":"k%d"' % key)]
                assert mine == [b'{"k":"k%d","n":%d}' % (key, n) for n in range(key, rows, KEYS)]
        assert self.broker.faults.left() == []

    def positions(self) -> list[LoadPosition]:
        found = [decode_position(r.value() or b"", NAME) for r in self.broker.records(LOADS_TOPIC)]
        return [position for position in found if position is not None]

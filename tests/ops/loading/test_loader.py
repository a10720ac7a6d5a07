"""Loads of files from beginning to end, and how they continue."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Any

import pytest

from pipeline.core.names import LOADS_TOPIC
from pipeline.errors import AbortableError, ConfigError, InputError
from pipeline.ops.loading.file_sequence import FileSequence
from pipeline.ops.loading.formats.lines import new_hash
from pipeline.ops.loading.loader import find_topic
from pipeline.ops.loading.positions import LoadOptions, LoadPosition
from pipeline.ports import Output, TopicSpec
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryProducer, MemoryProducers
from tests.support.ops.loading.load_case import ID, KEYS, NAME, ROWS, Case, Crash, csv_file, csv_files


def test_a_load_writes_every_row_once_and_its_position_with_it() -> None:
    """The plain case: transactions of a batch, the last one marked as the end."""
    case = Case()
    last = case.load()
    case.check()
    positions = case.positions()
    assert [p.records for p in positions] == [10, 20, 30, 40, 50, ROWS]
    assert [p.seq for p in positions] == list(range(1, len(positions) + 1))
    assert (last.finished, last.offset, last.line) == (True, len(csv_file()), ROWS + 1)
    assert len({p.nonce for p in positions}) == len(positions)


def test_running_it_again_after_the_end_writes_nothing() -> None:
    """Retrying a job that already succeeded must be harmless."""
    case = Case()
    case.load()
    before = case.positions()
    loader = case.loader(csv_file())
    loader.run(lambda _: None)
    assert loader.already_done
    assert case.positions() == before
    case.check()


def test_a_changed_beginning_is_refused_and_nothing_is_written() -> None:
    """A file edited between the runs no longer says which of its rows are loaded."""
    case = Case()
    with pytest.raises(InputError, match="line 25"):
        case.load(csv_file(23) + b"bad\n")
    loaded = case.values()
    with pytest.raises(InputError, match="changed within the part that was loaded"):
        case.load(csv_file().replace(b"k1,1\n", b"k1,9\n"))
    with pytest.raises(InputError, match="it was truncated"):
        case.load(csv_file(5))
    assert case.values() == loaded


def test_a_bad_line_commits_what_precedes_it_and_continues_when_fixed() -> None:
    """One invalid row must not force the user to load all rows again."""
    case = Case()
    with pytest.raises(InputError, match=r"f\.csv, line 25: "):
        case.load(csv_file(23) + b"bad\nk0,7\n")
    case.check(23)
    case.load(csv_file())
    case.check()


def test_a_file_that_has_grown_is_continued() -> None:
    """A log that is loaded every hour: only what is new, whatever was said about its end before."""
    case = Case()
    assert case.load(csv_file(20)).finished
    assert case.load(csv_file()).records == ROWS
    case.check()


def test_a_last_line_that_has_grown_is_refused() -> None:
    """Its record is loaded already, and was another one."""
    case = Case()
    case.load(csv_file(20).rstrip(b"\n"))
    with pytest.raises(InputError, match="was loaded without a line end"):
        case.load(csv_file(20).rstrip(b"\n") + b"7\n")


def test_a_restart_loads_everything_again_and_is_itself_continued() -> None:
    """Asked for, it doubles; a crash in the middle of it must not double once more."""
    case = Case()
    case.load()
    case.broker.fail_next("send", AbortableError("hiccup"), where=ID)
    case.broker.fail_next("send", Crash(), where=ID)
    with pytest.raises(Crash):
        case.load(restart=True)
    assert case.load(restart=True).run == 2
    case.broker.fail_next("commit", Crash(), after=True, where=ID)
    with pytest.raises(Crash):
        case.load(restart=True)
    last = case.load()
    assert (last.run, last.records, last.finished) == (3, ROWS, True)
    case.check(times=3)


def test_an_empty_json_file_is_complete_at_once() -> None:
    """An hour without events is no error."""
    case = Case()
    loader = case.loader(b"", options=LoadOptions(format="jsonl"))
    assert loader.run(lambda _: None).finished
    assert case.values() == []


def test_a_topic_recreated_during_the_load_is_noticed() -> None:
    """Its first rows are gone with the old topic: saying 'complete' would be a lie."""
    case = Case()

    def recreate(position: LoadPosition) -> None:
        if position.seq == 2:
            case.broker.delete("t")
            case.broker.create(TopicSpec("t", 3))

    with pytest.raises(ConfigError, match="deleted during the load"):
        case.loader(csv_file()).run(recreate)


def test_topics_that_cannot_be_loaded_into_are_refused() -> None:
    """Before anything is fenced or written."""
    broker = MemoryBroker()
    cluster = MemoryCluster(broker)
    with pytest.raises(ConfigError, match="there is no topic 'nope'") as missing:
        find_topic(cluster, "nope")
    assert missing.value.hint is not None
    assert "pipeline topics apply" in missing.value.hint
    broker.create(TopicSpec("shop.main.journal", 1))
    for own in (LOADS_TOPIC, "shop.main.journal"):
        with pytest.raises(ConfigError, match="cannot load into"):
            find_topic(cluster, own)
    broker.create(TopicSpec("t", 1))
    for spec in (TopicSpec(LOADS_TOPIC, 1), TopicSpec(LOADS_TOPIC, 2, config={"cleanup.policy": "compact"})):
        broker.create(spec)
        with pytest.raises(ConfigError, match=r"cleanup\.policy=compact"):
            find_topic(cluster, "t")
        broker.delete(LOADS_TOPIC)


@pytest.mark.parametrize("fails", [False, True])
def test_a_load_leaves_neither_a_client_nor_a_file_open(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that loads many would run out of both."""
    left = Counter[str]()
    for made in (MemoryProducer, FileSequence):
        name, begin, close = made.__name__, made.__init__, made.close

        def opening(one: Any, *args: Any, name: str = name, begin: Any = begin) -> None:
            begin(one, *args)
            left[name] += 1

        def closing(one: Any, name: str = name, close: Any = close) -> None:
            close(one)
            left[name] -= 1

        monkeypatch.setattr(made, "__init__", opening)
        monkeypatch.setattr(made, "close", closing)
    case = Case()
    if fails:
        case.broker.fail_next("flush", ConfigError("refused"))
        with pytest.raises(ConfigError, match="refused"):
            case.load()
    else:
        case.load()
    assert left == {"MemoryProducer": 0, "FileSequence": 0}


def test_rows_without_a_key_are_counted_over_all_transactions() -> None:
    """What a load has skipped is said at its end, wherever in the file it was, and also by the run that went on."""
    case = Case()
    rows = csv_file(40).splitlines(keepends=True)
    for at in (3, 13, 33):
        rows.insert(at, b",7\n")
    first, second = (case.loader(b"".join(rows), missing_key="skip") for _ in range(2))
    with pytest.raises(Crash):
        first.run(lambda position: _crash_behind(position, 20))
    assert second.run(lambda _: None).skipped == 3
    assert [position.skipped for position in case.positions()][-1] == 3


def _crash_behind(position: LoadPosition, records: int) -> None:
    if position.records > records:
        raise Crash


def test_a_list_that_begins_otherwise_is_refused_and_nothing_is_written() -> None:
    """One file changed, went away or moved between the runs."""
    case, files = Case(), csv_files(10, 20, 30)
    case.load(files)
    before = case.positions()
    first, second, third = files.items()
    for other in (
        [first, ("1.csv", b"k,n\nk0,0\n"), third],
        [second, third],
        [second, first, third],
        [first],
    ):
        with pytest.raises(InputError, match="cannot be continued"):
            case.load(dict(other))
    assert case.positions() == before
    case.check(30)


def test_a_load_of_one_file_continues_as_a_load_of_many() -> None:
    """What began as a file becomes a list when the second one is there."""
    case, files = Case(), csv_files(20, 40, ROWS)
    case.load({"0.csv": files["0.csv"]})
    assert case.load(files).finished_files.count == 2
    case.check()


def test_a_misspelled_column_is_named_before_changed_options() -> None:
    """With the advice to add --restart, the next run would fail in the same way."""
    case = Case()
    case.load()
    before = case.positions()
    with pytest.raises(InputError, match=r"no column 'nn'; did you mean 'n'\?") as refusal:
        case.loader(csv_file(), options=LoadOptions(format="csv", key="nn")).run(lambda _: None)
    assert refusal.value.hint == "its columns: k, n"
    with pytest.raises(InputError, match="with --key 'k', not 'n'"):
        case.loader(csv_file(), options=LoadOptions(format="csv", key="n")).run(lambda _: None)
    assert case.positions() == before


def test_only_continuing_is_refused_where_nothing_is_loaded() -> None:
    """A job whose name was mistyped must not load everything once more."""
    case = Case()
    with pytest.raises(InputError, match="no transaction of a load with this name") as refusal:
        case.loader(csv_file(), resume_only=True).run(lambda _: None)
    assert "--resume-only" in str(refusal.value.hint)
    assert case.values() == []
    case.load(csv_file(20))
    case.loader(csv_file(), resume_only=True).run(lambda _: None)
    case.check()


def test_a_position_of_the_release_before_is_continued() -> None:
    """A load that an older release began, byte for byte as it wrote it."""
    case = Case()
    topic_id = MemoryCluster(case.broker).describe(["t"])["t"].topic_id
    prefix = csv_file(20)
    digest = new_hash()
    digest.update(prefix)
    body = (
        b'{"name":"%s","run":1,"seq":2,"nonce":"abc","topic":"t","topic_id":"%s","file":"f.csv",'
        b'"options":{"format":"csv","key":"k","id":null,"timestamp":null,"null":[],"text":[]},"offset":%d,"line":21,'
        b'"records":20,"skipped":0,"prefix_hash":"%s","finished":false,"text_columns":["k"]}'
        % (NAME.encode(), topic_id.encode(), len(prefix), digest.hexdigest().encode())
    )
    checksum = blake2b(body, digest_size=8).hexdigest()
    data = b'{"version":1,"name":"%s","checksum":"%s","load":%s}' % (NAME.encode(), checksum.encode(), body)
    producer = MemoryProducers(case.broker).open(ID)
    producer.init()
    producer.begin()
    producer.send(
        [Output("t", b"k%d" % (n % KEYS), b'{"k":"k%d","n":%d}' % (n % KEYS, n), 0) for n in range(20)]
    )
    producer.send([Output(LOADS_TOPIC, NAME.encode(), data, 0)])
    producer.flush()
    producer.commit()
    producer.close()
    last = case.load(csv_file())
    assert (last.seq, last.records, last.finished) == (6, ROWS, True)
    case.check()
